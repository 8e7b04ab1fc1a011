// SPDX-License-Identifier: Apache-2.0
// From a finished span of the SDK to the two halves of its line.

#ifndef AUDITSPAN_SPAN_H
#define AUDITSPAN_SPAN_H

#include "attributes.h"

// Names of attributes of the SDK's objects; made once.
static struct { PyObject *attributes, *context, *dict, *dropped, *end, *events, *kind, *links, *name, *parent, *queue,
    *resource, *scope, *start, *status, *code, *description, *sixty_four; } known;

static int know(void) {
    static const struct { PyObject **at; const char *text; } all[] = {
        {&known.attributes, "_attributes"}, {&known.context, "_context"}, {&known.dict, "_dict"},
        {&known.dropped, "dropped"}, {&known.end, "_end_time"}, {&known.events, "_events"}, {&known.kind, "_kind"},
        {&known.links, "_links"}, {&known.name, "_name"}, {&known.parent, "_parent"}, {&known.queue, "_dq"},
        {&known.resource, "_resource"}, {&known.scope, "_instrumentation_scope"}, {&known.start, "_start_time"},
        {&known.status, "_status"}, {&known.code, "_status_code"}, {&known.description, "_description"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*all[i].at == NULL && (*all[i].at = PyUnicode_InternFromString(all[i].text)) == NULL) return 0;
    }
    return known.sixty_four != NULL || (known.sixty_four = PyLong_FromLong(64)) != NULL;
}

static int whole(PyObject *object, uint64_t *number) {
    if (object == NULL || !PyLong_Check(object)) return 0;
    *number = PyLong_AsUnsignedLongLong(object);
    if (!PyErr_Occurred()) return 1;
    PyErr_Clear();
    return 0;
}

static int whole_attribute(PyObject *object, PyObject *name, uint64_t *number) {
    PyObject *found = PyObject_GetAttr(object, name);
    int usual = whole(found, number);
    if (found == NULL) PyErr_Clear();
    Py_XDECREF(found);
    return usual;
}

// Whether a list of events or links is empty, and how many were dropped from it.
static int none_left(PyObject *span, PyObject *name, uint64_t *dropped) {
    PyObject *list = PyObject_GetAttr(span, name), *queue = NULL;
    int usual = 0;
    *dropped = 0;
    if (list != NULL && PyTuple_CheckExact(list)) {
        usual = PyTuple_Size(list) == 0;
    } else if (list != NULL && (queue = PyObject_GetAttr(list, known.queue)) != NULL) {
        usual = PyObject_Size(queue) == 0 && whole_attribute(list, known.dropped, dropped);
    }
    if (PyErr_Occurred()) PyErr_Clear();
    Py_XDECREF(queue); Py_XDECREF(list);
    return usual;
}

// How an object is written that is one of some; NULL: it is not. Borrowed.
static PyObject *written_as(PyObject *pairs, PyObject *object) {
    for (Py_ssize_t i = 0; PyTuple_Check(pairs) && i < PyTuple_Size(pairs); i++) {
        PyObject *pair = PyTuple_GetItem(pairs, i);
        if (PyTuple_Check(pair) && PyTuple_Size(pair) == 2 && PyTuple_GetItem(pair, 0) == object) {
            PyObject *written = PyTuple_GetItem(pair, 1);
            return PyBytes_Check(written) ? written : NULL;
        }
    }
    return NULL;
}

static int put_bytes(Out *out, PyObject *bytes) {
    if (bytes == NULL || !PyBytes_Check(bytes)) return 0;
    put(out, PyBytes_AsString(bytes), (size_t)PyBytes_Size(bytes));
    return 1;
}

// Resource, scope and segment.
static int put_fixed(Out *out, PyObject *fixed, PyObject *resource, PyObject *scope, PyObject *segment) {
    PyObject *key = Py_BuildValue("(NNO)", PyLong_FromVoidPtr(resource), PyLong_FromVoidPtr(scope), segment);
    PyObject *found = key != NULL && PyDict_Check(fixed) ? PyDict_GetItemWithError(fixed, key) : NULL;
    Py_XDECREF(key);
    if (PyErr_Occurred()) PyErr_Clear();
    return found != NULL && PyTuple_Check(found) && PyTuple_Size(found) == 3 && PyTuple_GetItem(found, 0) == resource
        && PyTuple_GetItem(found, 1) == scope && put_bytes(out, PyTuple_GetItem(found, 2));
}

static int put_status(Out *out, PyObject *span, PyObject *codes) {
    PyObject *status = PyObject_GetAttr(span, known.status);
    PyObject *code = status ? PyObject_GetAttr(status, known.code) : NULL;
    PyObject *description = code ? PyObject_GetAttr(status, known.description) : NULL;
    int usual = description == Py_None && put_bytes(out, written_as(codes, code));
    if (PyErr_Occurred()) PyErr_Clear();
    Py_XDECREF(status); Py_XDECREF(code); Py_XDECREF(description);
    return usual;
}

// Write both halves. 1: done, 0: not usual, -1: an exception.
static int write_parts(Out *before, Out *after, Out *private, Recorder *self, PyObject *span, PyObject *segment) {
    PyObject *context = NULL, *parent = NULL, *attributes = NULL, *given = NULL, *object = NULL;
    PyObject *resource = NULL, *scope = NULL, *top = NULL;
    PyObject *state = self->state;  // held: another may be set when Python's code runs
    uint64_t start, end, own, flags, high, above = 0, dropped, dropped_events, dropped_links;
    int usual = 0;
    Py_INCREF(state);
    if ((context = PyObject_GetAttr(span, known.context)) == NULL || (parent = PyObject_GetAttr(span, known.parent)) == NULL
        || (attributes = PyObject_GetAttr(span, known.attributes)) == NULL
        || (given = PyObject_GetAttr(attributes, known.dict)) == NULL
        || (resource = PyObject_GetAttr(span, known.resource)) == NULL
        || (scope = PyObject_GetAttr(span, known.scope)) == NULL) goto end;
    if (!PyDict_CheckExact(given) || !PyTuple_Check(context) || PyTuple_Size(context) < 5) goto end;
    if (!whole_attribute(attributes, known.dropped, &dropped) || !none_left(span, known.events, &dropped_events)
        || !none_left(span, known.links, &dropped_links)) goto end;
    if (!whole_attribute(span, known.start, &start) || !whole_attribute(span, known.end, &end)) goto end;
    if (!whole(PyTuple_GetItem(context, 1), &own) || !whole(PyTuple_GetItem(context, 3), &flags)) goto end;
    if ((top = PyNumber_Rshift(PyTuple_GetItem(context, 0), known.sixty_four)) == NULL
        || !whole(top, &high)) goto end;  // beyond 128 bits, or below 0, it is no trace ID
    uint64_t low = PyLong_AsUnsignedLongLongMask(PyTuple_GetItem(context, 0));
    if (!PyTuple_Check(state) || PyTuple_Size(state) != 2 || PyTuple_GetItem(state, 0) != PyTuple_GetItem(context, 4)) goto end;
    if (parent != Py_None && (!PyTuple_Check(parent) || PyTuple_Size(parent) < 3 || !PyBool_Check(PyTuple_GetItem(parent, 2))
                              || !whole(PyTuple_GetItem(parent, 1), &above))) goto end;

    PUT(before, "{\"attributes\":");
    if ((usual = write_attributes(before, private, self, given)) != 1) goto end;
    usual = 0;
    PUT(before, ",\"dropped\":{\"attributes\":"); put_number(before, dropped);
    PUT(before, ",\"events\":"); put_number(before, dropped_events);
    PUT(before, ",\"links\":"); put_number(before, dropped_links);
    PUT(before, "},\"end\":\""); put_number(before, end);
    PUT(before, "\",\"events\":[],\"kind\":");
    if ((object = PyObject_GetAttr(span, known.kind)) == NULL || !put_bytes(before, written_as(self->kinds, object))) goto end;
    Py_DECREF(object);
    PUT(before, ",\"links\":[],\"name\":");
    if ((object = PyObject_GetAttr(span, known.name)) == NULL || !PyUnicode_CheckExact(object)
        || !PyDict_Check(self->names) || !put_bytes(before, PyDict_GetItemWithError(self->names, object))) goto end;
    PUT(before, ",\"number\":");
    PUT(after, ",\"origin\":");
    if (!put_bytes(after, self->origin)) goto end;
    if (parent != Py_None && PyTuple_GetItem(parent, 2) == Py_True) PUT(after, ",\"parent_is_remote\":true,\"parent_span_id\":\"");
    else PUT(after, ",\"parent_is_remote\":false,\"parent_span_id\":\"");
    if (parent != Py_None) put_hexadecimal(after, above);
    PUT(after, "\",");
    if (!put_fixed(after, self->fixed, resource, scope, segment)) goto end;
    PUT(after, ",\"span_id\":\""); put_hexadecimal(after, own);
    PUT(after, "\",\"start\":\""); put_number(after, start);
    PUT(after, "\",\"status\":");
    if (!put_status(after, span, self->codes)) goto end;
    PUT(after, ",\"trace_flags\":"); put_number(after, flags);
    PUT(after, ",\"trace_id\":\""); put_hexadecimal(after, high); put_hexadecimal(after, low);
    PUT(after, "\",\"trace_state\":");
    if (!put_bytes(after, PyTuple_GetItem(state, 1))) goto end;
    PUT(after, ",\"type\":\"span\"");
    if (!put_bytes(after, self->version)) goto end;
    if (private->size) { PUT(after, "\t{"); put(after, private->start, private->size); PUT(after, "}"); }
    usual = 1;
end:
    if (usual != -1 && PyErr_Occurred()) { PyErr_Clear(); usual = 0; }  // an object of the SDK that is not as it is known
    Py_XDECREF(context); Py_XDECREF(parent); Py_XDECREF(attributes); Py_XDECREF(given); Py_XDECREF(object);
    Py_XDECREF(resource); Py_XDECREF(scope); Py_DECREF(state); Py_XDECREF(top);
    return usual;
}


#endif
