// SPDX-License-Identifier: Apache-2.0

// A receiver of OTLP/HTTP that accepts everything and keeps nothing: what is measured is the sender.
// It prints its address, and what it received (bytes as sent, requests, spans of uncompressed protobuf) at /received.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

var received, requests, spans atomic.Int64
var buffers = sync.Pool{New: func() any { buffer := make([]byte, 0, 1<<20); return &buffer }}

func main() {
	http.HandleFunc("/received", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(answer, "%d %d %d", received.Swap(0), requests.Swap(0), spans.Swap(0))
	})
	http.HandleFunc("/", accept)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	panic(http.Serve(listener, nil))
}

func accept(answer http.ResponseWriter, request *http.Request) {
	requests.Add(1)
	kind := request.Header.Get("Content-Type")
	if strings.Contains(kind, "protobuf") && request.Header.Get("Content-Encoding") == "" {
		buffer := buffers.Get().(*[]byte)
		body := (*buffer)[:0]
		for {
			if len(body) == cap(body) {
				body = append(body, 0)[:len(body)]
			}
			count, err := request.Body.Read(body[len(body):cap(body)])
			body = body[:len(body)+count]
			if err != nil {
				break
			}
		}
		received.Add(int64(len(body)))
		// ExportTraceServiceRequest.resource_spans = 1, ResourceSpans.scope_spans = 2, ScopeSpans.spans = 2
		spans.Add(count(body, 1, 2, 2))
		*buffer = body
		buffers.Put(buffer)
	} else {
		size, _ := io.Copy(io.Discard, request.Body)
		received.Add(size)
	}
	answer.Header().Set("Content-Type", kind)
	if strings.Contains(kind, "json") {
		io.WriteString(answer, "{}")
	}
}

// count returns how many messages there are at a path of field numbers.
func count(message []byte, path ...uint64) (found int64) {
	if len(path) == 0 {
		return 1
	}
	for len(message) > 0 {
		tag, size := binary.Uvarint(message)
		if size <= 0 || tag&7 != 2 { // on the way there are only fields of this kind
			return found
		}
		length, more := binary.Uvarint(message[size:])
		begin := uint64(size + more)
		if more <= 0 || begin+length > uint64(len(message)) {
			return found
		}
		if tag>>3 == path[0] {
			found += count(message[begin:begin+length], path[1:]...)
		}
		message = message[begin+length:]
	}
	return found
}
