// SPDX-License-Identifier: Apache-2.0
// What both halves need: a buffer to write to, and a cursor to read JSON with. Nothing here knows Python's objects but
// for the allocator, and nothing reads or writes outside of what it was given.
//
// "Usual" is the word for what is handled here. Whatever is not usual is refused (return 0), and Python's code, which
// says what is right, does it.

#ifndef AUDITSPAN_TEXT_H
#define AUDITSPAN_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// -- writing ----------------------------------------------------------------------------------------------------
typedef struct {
    char *start;
    size_t size, room;
    int failed;  // there was no memory: what is in it is incomplete
} Out;

static int room_for(Out *out, size_t more) {
    if (out->failed) return 0;
    if (more > out->room - out->size) {
        size_t room = out->room ? out->room : 4096;
        if (more > SIZE_MAX / 4 || out->size > SIZE_MAX / 4) { out->failed = 1; return 0; }
        while (room - out->size < more) room *= 2;
        char *larger = realloc(out->start, room);
        if (larger == NULL) { out->failed = 1; return 0; }
        out->start = larger;
        out->room = room;
    }
    return 1;
}

static void put(Out *out, const char *text, size_t size) {
    if (size && room_for(out, size)) {  // of nothing there may be no address either
        memcpy(out->start + out->size, text, size);
        out->size += size;
    }
}

#define PUT(out, literal) put((out), (literal), sizeof(literal) - 1)

static void put_number(Out *out, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do { digits[--at] = (char)('0' + number % 10); } while (number /= 10);
    put(out, digits + at, sizeof digits - at);
}

static const char HEX[] = "0123456789abcdef";

// The first byte that stands in a JSON string otherwise than it is: " or \ or what is below a space. Eight at a time: a
// byte's top bit is set in `found` if it is one of them (a bit above a real one may be set too, never one below).
static const unsigned char *plain_until(const unsigned char *at, const unsigned char *end) {
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    while (end - at >= 8) {
        uint64_t word, quote, backslash;
        memcpy(&word, at, 8);
        quote = word ^ (ones * '"');
        backslash = word ^ (ones * '\\');
        if ((((word - ones * 0x20) & ~word) | ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash)) & tops) break;
        at += 8;
    }
    while (at < end && *at >= 0x20 && *at != '"' && *at != '\\') at++;
    return at;
}

// Write a text as a JSON string, as orjson does: " and \ and what is below a space are escaped, all else stands as it is.
static void put_string(Out *out, const unsigned char *text, size_t size) {
    if (size > (SIZE_MAX - 2) / 6 || !room_for(out, size * 6 + 2)) { out->failed = 1; return; }
    char *to = out->start + out->size;
    const unsigned char *end = text + size;
    *to++ = '"';
    for (;;) {
        const unsigned char *next = plain_until(text, end);
        memcpy(to, text, (size_t)(next - text));
        to += next - text;
        if (next == end) break;
        text = next + 1;
        *to++ = '\\';
        switch (*next) {
            case '"': case '\\': *to++ = (char)*next; break;
            case '\b': *to++ = 'b'; break;
            case '\t': *to++ = 't'; break;
            case '\n': *to++ = 'n'; break;
            case '\f': *to++ = 'f'; break;
            case '\r': *to++ = 'r'; break;
            default:
                memcpy(to, "u00", 3); to += 3;
                *to++ = HEX[*next >> 4]; *to++ = HEX[*next & 15];
        }
    }
    *to++ = '"';
    out->size = (size_t)(to - out->start);
}

static void put_hexadecimal(Out *out, uint64_t number) {
    char digits[16];
    for (int at = 15; at >= 0; at--, number >>= 4) digits[at] = HEX[number & 15];
    put(out, digits, sizeof digits);
}

// -- reading ----------------------------------------------------------------------------------------------------
typedef struct {
    const unsigned char *at, *end;
    int strict;  // nothing is usual of which it cannot be told here whether it is written in its one canonical form
} In;
typedef struct { const char *text; size_t size; } Slice;

static int is_slice(Slice slice, Slice other) {
    return slice.size == other.size && memcmp(slice.text, other.text, slice.size) == 0;
}

static int next_is(In *in, const char *literal, size_t size) {
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, literal, size) != 0) return 0;
    in->at += size;
    return 1;
}

#define NEXT_IS(in, literal) next_is((in), (literal), sizeof(literal) - 1)

static int next_byte(const In *in) { return in->at < in->end ? *in->at : -1; }

// Whether bytes are UTF-8, as Python's strict decoder says (no surrogates, nothing overlong, nothing beyond U+10FFFF).
static int is_utf8(const unsigned char *at, const unsigned char *end) {
    while (at < end) {
        if (*at < 0x80) { at++; continue; }
        unsigned char lead = *at;
        int more = lead >= 0xC2 && lead <= 0xDF ? 1 : lead >= 0xE0 && lead <= 0xEF ? 2 : lead >= 0xF0 && lead <= 0xF4 ? 3 : 0;
        if (more == 0 || end - at <= more) return 0;
        unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (at[1] < low || at[1] > high) return 0;
        for (int i = 2; i <= more; i++) if (at[i] < 0x80 || at[i] > 0xBF) return 0;
        at += more + 1;
    }
    return 1;
}

// A JSON string as orjson writes it; the slice has its quotes.
static int string_of(In *in, Slice *found) {
    const unsigned char *from = in->at;
    if (next_byte(in) != '"') return 0;
    for (in->at++; (in->at = plain_until(in->at, in->end)) < in->end; in->at++) {
        unsigned char byte = *in->at;
        if (byte == '"') {
            in->at++;
            found->text = (const char *)from;
            found->size = (size_t)(in->at - from);
            return 1;
        }
        if (byte < 0x20) return 0;
        if (byte == '\\') {
            if (++in->at == in->end) return 0;
            byte = *in->at;
            if (byte == 'u') {  // only of what has no shorter form
                if (in->end - in->at < 5 || memcmp(in->at + 1, "00", 2) != 0) return 0;
                unsigned char a = in->at[3], b = in->at[4];
                if ((a != '0' && a != '1') || !((b >= '0' && b <= '9') || (b >= 'a' && b <= 'f'))) return 0;
                if (a == '0' && memchr("89acd", b, 5)) return 0;
                in->at += 4;
            } else if (!memchr("\"\\btnfr", byte, 7)) {
                return 0;
            }
        }
    }
    return 0;
}

static int has_escape(Slice quoted) { return memchr(quoted.text, '\\', quoted.size) != NULL; }

enum { INTEGER = 1, DOUBLE = 2 };

// A number of up to 18 digits and without exponent; returns its kind, 0 if it is not usual.
static int number_of(In *in, Slice *found) {
    const unsigned char *from = in->at;
    int negative = NEXT_IS(in, "-"), kind = INTEGER;
    const unsigned char *digits = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
    ptrdiff_t count = in->at - digits;
    if (count == 0 || count > 18 || (*digits == '0' && count > 1)) return 0;
    if (next_byte(in) == '.') {
        kind = DOUBLE;
        const unsigned char *fraction = ++in->at;
        while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
        if (in->at == fraction || in->at - fraction > 20) return 0;
    } else if (negative && *digits == '0') {
        return 0;
    }
    if (next_byte(in) == 'e' || next_byte(in) == 'E') return 0;
    if (in->strict && (kind == DOUBLE || count > 15)) return 0;  // which of its spellings is the shortest; beyond 2^53
    found->text = (const char *)from;
    found->size = (size_t)(in->at - from);
    return kind;
}

static int is_before(Slice one, Slice other) {
    size_t shorter = one.size < other.size ? one.size : other.size;
    int order = memcmp(one.text + 1, other.text + 1, shorter - 2);
    return order < 0 || (order == 0 && one.size < other.size);
}

// Any JSON value whose objects have their names in order, skipped.
static int value_of(In *in, int depth, Slice *found) {
    const unsigned char *from = in->at;
    Slice part;
    int byte = next_byte(in);
    if (byte == '"') {
        if (!string_of(in, &part)) return 0;
    } else if (byte == '{' || byte == '[') {
        unsigned char close = byte == '{' ? '}' : ']';
        if (depth == 0) return 0;
        in->at++;
        if (next_byte(in) == close) {
            in->at++;
        } else {
            Slice name, last = {NULL, 0};
            for (;;) {
                if (byte == '{') {
                    if (!string_of(in, &name) || has_escape(name) || !NEXT_IS(in, ":")) return 0;
                    if (last.text != NULL && !is_before(last, name)) return 0;
                    last = name;
                }
                if (!value_of(in, depth - 1, &part)) return 0;
                if (next_byte(in) == close) { in->at++; break; }
                if (!NEXT_IS(in, ",")) return 0;
            }
        }
    } else if (!(NEXT_IS(in, "true") || NEXT_IS(in, "false") || NEXT_IS(in, "null")) && !number_of(in, &part)) {
        return 0;
    }
    found->text = (const char *)from;
    found->size = (size_t)(in->at - from);
    return 1;
}

#endif
