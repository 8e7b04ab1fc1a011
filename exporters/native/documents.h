// SPDX-License-Identifier: Apache-2.0
// From statements to the spans of an OTLP/JSON request: text to text, without an object of Python's in between, and
// so without the interpreter's lock. What comes out is, byte for byte, what otlp/as_json.py makes.

#ifndef AUDITSPAN_DOCUMENTS_H
#define AUDITSPAN_DOCUMENTS_H

#include "text.h"

#define MAX_PRIVATE 32  // personal values of one entry

typedef struct { Slice name, salt, value; int kind; } Opening;  // kind: first byte of the value

typedef struct {
    const unsigned char *statement, *private;
    size_t statement_size, private_size;
    uint64_t index;
} Line;

static int hexadecimal(Slice quoted, size_t digits) {
    if (quoted.size != digits + 2) return 0;
    for (size_t i = 1; i <= digits; i++) {
        char c = quoted.text[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return 0;
    }
    return 1;
}

// Nanoseconds: a decimal number that surely fits into 64 bits.
static int nanoseconds(Slice quoted) {
    if (quoted.size < 3 || quoted.size > 21 || (quoted.text[1] == '0' && quoted.size > 3)) return 0;
    for (size_t i = 1; i < quoted.size - 1; i++) if (quoted.text[i] < '0' || quoted.text[i] > '9') return 0;
    return 1;
}

static int base64(Slice quoted) {
    for (size_t i = 1; i + 1 < quoted.size; i++) {
        char c = quoted.text[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' || c == '/' || c == '='))
            return 0;
    }
    return 1;
}

// The one spelling of a digest of 32 bytes: 43 characters, of which the last has 4 bits, and a "=".
static int digest(Slice quoted) {
    return quoted.size == 46 && base64(quoted) && memchr(quoted.text + 1, '=', 44) == quoted.text + 44
        && strchr("AEIMQUYcgkosw048", quoted.text[43]) != NULL;
}

// Members that a trace state of one vendor has, in the only form that reading and writing it surely keeps.
static int trace_state(Slice quoted) {
    size_t at = 1, end = quoted.size - 1;
    const char *text = quoted.text;
    if (end - at > 200 || !(text[at] >= 'a' && text[at] <= 'z')) return 0;
    while (at < end && ((text[at] >= 'a' && text[at] <= 'z') || (text[at] >= '0' && text[at] <= '9'))) at++;
    if (at == end || text[at++] != '=' || at == end) return 0;
    for (; at < end; at++) {
        char c = text[at];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr(":._;/-", c))) return 0;
    }
    return 1;
}

#define IS(slice, literal) ((slice).size == sizeof(literal) - 1 && memcmp((slice).text, (literal), sizeof(literal) - 1) == 0)

// Names of attributes that are added to a document; a statement has none of them.
static int is_added(Slice name) {
    return IS(name, "\"audit.statement\"") || IS(name, "\"audit.log.origin\"") || IS(name, "\"audit.log.index\"")
        || IS(name, "\"audit.sequence.stream_id\"") || IS(name, "\"audit.sequence.number\"")
        || IS(name, "\"audit.private\"") || IS(name, "\"audit.log.document\"");
}

// The private part of a line: {"name":["salt",value],…}. Returns how many, -1 if it is not usual.
static int openings_of(const Line *line, Opening *found) {
    In in = {line->private, line->private + line->private_size, 0};
    int count = 0;
    while (in.at < in.end && *in.at == ' ') in.at++;
    while (in.at < in.end && in.end[-1] == ' ') in.end--;
    if (in.at == in.end) return 0;
    if (!is_utf8(in.at, in.end) || !NEXT_IS(&in, "{")) return -1;
    if (NEXT_IS(&in, "}")) return in.at == in.end ? 0 : -1;
    for (;;) {
        if (count == MAX_PRIVATE) return -1;
        Opening *opening = &found[count];
        if (!string_of(&in, &opening->name) || has_escape(opening->name) || !NEXT_IS(&in, ":[")) return -1;
        if (!string_of(&in, &opening->salt) || !base64(opening->salt) || !NEXT_IS(&in, ",")) return -1;
        opening->kind = next_byte(&in);
        if (opening->kind == '{' || !value_of(&in, 2, &opening->value) || !NEXT_IS(&in, "]")) return -1;
        for (int i = 0; i < count; i++) if (is_slice(found[i].name, opening->name)) return -1;
        count++;
        if (NEXT_IS(&in, "}")) return in.at == in.end ? count : -1;
        if (!NEXT_IS(&in, ",")) return -1;
    }
}

// A value of an attribute as OTLP's AnyValue. `deep`: it may be a list.
static int put_value(Out *out, In *in, int deep) {
    Slice part;
    int byte = next_byte(in), kind;
    if (byte == '"') {
        if (!string_of(in, &part)) return 0;
        PUT(out, "{\"stringValue\":"); put(out, part.text, part.size); PUT(out, "}");
    } else if (byte == 't') {
        if (!NEXT_IS(in, "true")) return 0;
        PUT(out, "{\"boolValue\":true}");
    } else if (byte == 'f') {
        if (!NEXT_IS(in, "false")) return 0;
        PUT(out, "{\"boolValue\":false}");
    } else if (byte == 'n') {
        if (!NEXT_IS(in, "null")) return 0;
        PUT(out, "{}");
    } else if (byte == '[') {
        if (!deep) return 0;
        in->at++;
        PUT(out, "{\"arrayValue\":{\"values\":[");
        if (!NEXT_IS(in, "]")) {
            for (;;) {
                if (!put_value(out, in, 0)) return 0;
                if (NEXT_IS(in, "]")) break;
                if (!NEXT_IS(in, ",")) return 0;
                PUT(out, ",");
            }
        }
        PUT(out, "]}}");
    } else {
        kind = number_of(in, &part);
        if (kind == INTEGER) {
            PUT(out, "{\"intValue\":\""); put(out, part.text, part.size); PUT(out, "\"}");
        } else if (kind == DOUBLE) {
            PUT(out, "{\"doubleValue\":"); put(out, part.text, part.size); PUT(out, "}");
        } else {
            return 0;
        }
    }
    return 1;
}

// The attributes of a statement, each followed by a comma.
static int put_attributes(Out *out, In *in, const Opening *openings, int count) {
    Slice name, sealed, last = {NULL, 0};
    if (!NEXT_IS(in, "{")) return 0;
    if (NEXT_IS(in, "}")) return 1;
    for (;;) {
        if (!string_of(in, &name) || has_escape(name) || is_added(name) || !NEXT_IS(in, ":")) return 0;
        if (last.text != NULL && !is_before(last, name)) return 0;  // of two of one name Python's code sends the last
        last = name;
        size_t before = out->size;
        PUT(out, "{\"key\":"); put(out, name.text, name.size); PUT(out, ",\"value\":");
        if (next_byte(in) == '{') {
            if (!NEXT_IS(in, "{\"commitment\":") || !string_of(in, &sealed) || !digest(sealed) || !NEXT_IS(in, "}")) return 0;
            int at = 0;
            while (at < count && !is_slice(openings[at].name, name)) at++;
            if (at < count) {
                In value = {(const unsigned char *)openings[at].value.text,
                            (const unsigned char *)openings[at].value.text + openings[at].value.size, 0};
                if (!put_value(out, &value, 1)) return 0;
                PUT(out, "},");
            } else if (!out->failed) {
                out->size = before;  // erased, or never there: it is not shown
            }
        } else {
            if (!put_value(out, in, 1)) return 0;
            PUT(out, "},");
        }
        if (NEXT_IS(in, "}")) return 1;
        if (!NEXT_IS(in, ",")) return 0;
    }
}

// What a statement of a span has after its attributes.
typedef struct {
    Slice dropped, end, events, kind, links, name, number, origin, parent, resource, scope, segment, own, start, code,
        message, flags, trace, state;
    int remote;
} Rest;

static int read_rest(In *in, Rest *rest) {
    if (!NEXT_IS(in, ",\"dropped\":") || !value_of(in, 1, &rest->dropped)) return 0;
    if (!NEXT_IS(in, ",\"end\":") || !string_of(in, &rest->end) || !nanoseconds(rest->end)) return 0;
    if (!NEXT_IS(in, ",\"events\":") || next_byte(in) != '[' || !value_of(in, 32, &rest->events)) return 0;
    if (!NEXT_IS(in, ",\"kind\":") || !string_of(in, &rest->kind)) return 0;
    if (!NEXT_IS(in, ",\"links\":") || next_byte(in) != '[' || !value_of(in, 32, &rest->links)) return 0;
    if (!NEXT_IS(in, ",\"name\":") || !string_of(in, &rest->name)) return 0;
    if (!NEXT_IS(in, ",\"number\":") || number_of(in, &rest->number) != INTEGER) return 0;
    if (!NEXT_IS(in, ",\"origin\":") || !string_of(in, &rest->origin)) return 0;
    if (!NEXT_IS(in, ",\"parent_is_remote\":")) return 0;
    if (!(rest->remote = NEXT_IS(in, "true")) && !NEXT_IS(in, "false")) return 0;
    if (!NEXT_IS(in, ",\"parent_span_id\":") || !string_of(in, &rest->parent)) return 0;
    if (rest->parent.size != 2 && !hexadecimal(rest->parent, 16)) return 0;
    if (!NEXT_IS(in, ",\"resource\":") || next_byte(in) != '{' || !value_of(in, 32, &rest->resource)) return 0;
    if (!NEXT_IS(in, ",\"scope\":") || next_byte(in) != '{' || !value_of(in, 32, &rest->scope)) return 0;
    if (!NEXT_IS(in, ",\"segment\":") || !string_of(in, &rest->segment)) return 0;
    if (!NEXT_IS(in, ",\"span_id\":") || !string_of(in, &rest->own) || !hexadecimal(rest->own, 16)) return 0;
    if (!NEXT_IS(in, ",\"start\":") || !string_of(in, &rest->start) || !nanoseconds(rest->start)) return 0;
    if (!NEXT_IS(in, ",\"status\":{\"code\":") || !string_of(in, &rest->code)) return 0;
    if (!NEXT_IS(in, ",\"message\":") || !string_of(in, &rest->message)) return 0;
    if (!NEXT_IS(in, "},\"trace_flags\":") || number_of(in, &rest->flags) != INTEGER || rest->flags.size > 3) return 0;
    if (*rest->flags.text == '-' || (rest->flags.size == 3 && memcmp(rest->flags.text, "255", 3) > 0)) return 0;
    if (!NEXT_IS(in, ",\"trace_id\":") || !string_of(in, &rest->trace) || !hexadecimal(rest->trace, 32)) return 0;
    if (!NEXT_IS(in, ",\"trace_state\":") || !string_of(in, &rest->state)) return 0;
    return NEXT_IS(in, ",\"type\":\"span\",\"v\":2}") && in->at == in->end;
}

// Whether a statement is that of a span in its one canonical form, at a place in a segment of a log.
static int is_at(const unsigned char *at, const unsigned char *end, Slice segment, uint64_t number, Slice origin, Slice *own) {
    In in = {at, end, 1};
    Slice attributes;
    Rest rest;
    uint64_t said = 0;
    if (!is_utf8(at, end) || !NEXT_IS(&in, "{\"attributes\":") || next_byte(&in) != '{') return 0;
    if (!value_of(&in, 64, &attributes) || !read_rest(&in, &rest)) return 0;
    for (size_t i = 0; i < rest.number.size; i++) said = said * 10 + (uint64_t)(rest.number.text[i] - '0');
    *own = rest.own;
    return *rest.number.text != '-' && said == number && is_slice(rest.segment, segment) && is_slice(rest.origin, origin);
}

// One span. `scratch` is for the attributes, which a statement has first and a span not.
static int put_span(Out *out, Out *scratch, const Line *line, Slice log, Slice *resource, Slice *scope) {
    In in = {line->statement, line->statement + line->statement_size, 0};
    Rest rest;
    Opening openings[MAX_PRIVATE];
    int count = openings_of(line, openings);
    if (count < 0 || !is_utf8(in.at, in.end)) return 0;
    scratch->size = 0;
    if (!NEXT_IS(&in, "{\"attributes\":") || !put_attributes(scratch, &in, openings, count)) return 0;
    if (!read_rest(&in, &rest) || rest.events.size != 2 || rest.links.size != 2) return 0;
    char kind = IS(rest.kind, "\"INTERNAL\"") ? '1' : IS(rest.kind, "\"SERVER\"") ? '2' : IS(rest.kind, "\"CLIENT\"") ? '3'
              : IS(rest.kind, "\"PRODUCER\"") ? '4' : IS(rest.kind, "\"CONSUMER\"") ? '5' : 0;
    char code = IS(rest.code, "\"UNSET\"") ? '0' : IS(rest.code, "\"OK\"") ? '1' : IS(rest.code, "\"ERROR\"") ? '2' : 0;
    if (!kind || !code || (rest.state.size != 2 && !trace_state(rest.state))) return 0;
    *resource = rest.resource;
    *scope = rest.scope;

    PUT(out, "{\"traceId\":"); put(out, rest.trace.text, rest.trace.size);
    PUT(out, ",\"spanId\":"); put(out, rest.own.text, rest.own.size);
    if (rest.parent.size != 2 && rest.remote) PUT(out, ",\"flags\":768,\"name\":");
    else PUT(out, ",\"flags\":256,\"name\":");
    put(out, rest.name.text, rest.name.size);
    PUT(out, ",\"kind\":"); put(out, &kind, 1);
    PUT(out, ",\"startTimeUnixNano\":"); put(out, rest.start.text, rest.start.size);
    PUT(out, ",\"endTimeUnixNano\":"); put(out, rest.end.text, rest.end.size);
    PUT(out, ",\"attributes\":[");
    put(out, scratch->start, scratch->size);
    PUT(out, "{\"key\":\"audit.statement\",\"value\":{\"stringValue\":");
    put_string(out, line->statement, line->statement_size);
    PUT(out, "}},"); put(out, log.text, log.size);
    PUT(out, ",{\"key\":\"audit.log.index\",\"value\":{\"intValue\":\""); put_number(out, line->index);
    PUT(out, "\"}},{\"key\":\"audit.sequence.stream_id\",\"value\":{\"stringValue\":"); put(out, rest.segment.text, rest.segment.size);
    PUT(out, "}},{\"key\":\"audit.sequence.number\",\"value\":{\"intValue\":\""); put(out, rest.number.text, rest.number.size);
    PUT(out, "\"}}");
    if (count) {
        PUT(out, ",{\"key\":\"audit.private\",\"value\":{\"stringValue\":\"{");
        for (int i = 0; i < count; i++) {
            if (i) PUT(out, ",");
            PUT(out, "\\\""); put(out, openings[i].name.text + 1, openings[i].name.size - 2);
            PUT(out, "\\\":\\\""); put(out, openings[i].salt.text + 1, openings[i].salt.size - 2);
            PUT(out, "\\\"");
        }
        PUT(out, "}\"}}");
    }
    PUT(out, "]");
    if (rest.parent.size != 2) { PUT(out, ",\"parentSpanId\":"); put(out, rest.parent.text, rest.parent.size); }
    if (rest.state.size != 2) { PUT(out, ",\"traceState\":"); put(out, rest.state.text, rest.state.size); }
    PUT(out, ",\"status\":{\"code\":"); put(out, &code, 1);
    if (code == '2' && rest.message.size != 2) { PUT(out, ",\"message\":"); put(out, rest.message.text, rest.message.size); }
    PUT(out, "}}");
    return !out->failed && !scratch->failed;
}

#endif
