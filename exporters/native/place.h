// SPDX-License-Identifier: Apache-2.0
// The type Place: where in a segment the next line goes. What Python's code does with it is in log/window.py.

#ifndef AUDITSPAN_PLACE_H
#define AUDITSPAN_PLACE_H

#include <errno.h>
#include <structmember.h>
#include <sys/mman.h>
#include <unistd.h>

#include "text.h"

typedef struct {
    PyObject_HEAD
    PyObject *segment;           // its name
    Py_ssize_t size, lines;      // what is written of it: bytes and lines
    Py_ssize_t limit;            // bytes from which on the next line goes to another segment
    Py_ssize_t begin, end;       // what of the file is mapped
    long long process;           // whose segment it is
    char held;                   // Python's code is about to write a line
    unsigned char *map;
} Place;

static void unmap(Place *place) {
    if (place->map != NULL) munmap(place->map, (size_t)(place->end - place->begin));
    place->map = NULL;
    place->begin = place->end = 0;
}

// Write a line that is in pieces. Nothing of Python runs meanwhile, so it is there or it is not, whatever other threads
// and signal handlers do. The LF comes last: a reader who sees it sees the whole line, and the kernel keeps what is
// stored when the process dies.
static void store(Place *place, const Slice *pieces, int count, size_t size) {
    unsigned char *to = place->map + (place->size - place->begin);
    for (int i = 0; i < count; to += pieces[i++].size) {
        if (pieces[i].size) memcpy(to, pieces[i].text, pieces[i].size);
    }
    __atomic_store_n(to, (unsigned char)'\n', __ATOMIC_RELEASE);
    place->size += (Py_ssize_t)size;
    place->lines++;
}

static int has_room(const Place *place, size_t size) {
    return place->map != NULL && place->size >= place->begin && size <= (size_t)(place->end - place->size)
        && place->size <= place->end;
}

PyDoc_STRVAR(map_doc, "map(descriptor, begin, size)\n--\n\nMap a part of a file, whose space is reserved, instead of what is mapped.");

static PyObject *place_map(Place *place, PyObject *args) {
    int descriptor;
    Py_ssize_t begin, size;
    if (!PyArg_ParseTuple(args, "inn", &descriptor, &begin, &size)) return NULL;
    if (begin < 0 || size <= 0 || begin > PY_SSIZE_T_MAX - size) {
        PyErr_SetString(PyExc_ValueError, "a part of a file is expected");
        return NULL;
    }
    void *found = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, (off_t)begin);
    if (found == MAP_FAILED) return PyErr_SetFromErrno(PyExc_OSError);
    unmap(place);
    place->map = found;
    place->begin = begin;
    place->end = begin + size;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(unmap_doc, "unmap()\n--\n\nMap nothing.");

static PyObject *place_unmap(Place *place, PyObject *none) {
    (void)none;
    unmap(place);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(append_doc, "append(line)\n--\n\nWrite a line, which ends in LF, to what is mapped; it must have room there.");

static PyObject *place_append(Place *place, PyObject *line) {
    Slice text;
    if (!PyBytes_Check(line) || PyBytes_Size(line) < 1) { PyErr_SetString(PyExc_TypeError, "a line is expected"); return NULL; }
    text.text = PyBytes_AsString(line);
    text.size = (size_t)PyBytes_Size(line) - 1;
    if (!has_room(place, text.size + 1)) { PyErr_SetString(PyExc_ValueError, "there is no room for the line"); return NULL; }
    store(place, &text, 1, text.size + 1);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(settle_doc, "settle()\n--\n\nDo nothing: a line is never written in part.");

static PyObject *place_settle(PyObject *place, PyObject *none) {
    (void)place; (void)none;
    Py_RETURN_NONE;
}

static PyObject *place_mapped(Place *place, void *none) {
    (void)none;
    return PyBool_FromLong(place->map != NULL);
}

static void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static void place_free(Place *place) {
    unmap(place);
    Py_CLEAR(place->segment);
    free_object((PyObject *)place);
}

static int place_init(Place *place, PyObject *args, PyObject *names) {
    if (PyTuple_Size(args) != 0 || (names != NULL && PyDict_Size(names) != 0)) {
        PyErr_SetString(PyExc_TypeError, "Place() takes no arguments");
        return -1;
    }
    if (place->segment == NULL && (place->segment = PyUnicode_FromString("")) == NULL) return -1;
    place->process = (long long)getpid();
    return 0;
}

static PyMemberDef place_members[] = {
    {"segment", T_OBJECT_EX, offsetof(Place, segment), 0, NULL},
    {"size", T_PYSSIZET, offsetof(Place, size), 0, NULL},
    {"lines", T_PYSSIZET, offsetof(Place, lines), 0, NULL},
    {"limit", T_PYSSIZET, offsetof(Place, limit), 0, NULL},
    {"begin", T_PYSSIZET, offsetof(Place, begin), READONLY, NULL},
    {"end", T_PYSSIZET, offsetof(Place, end), READONLY, NULL},
    {"process", T_LONGLONG, offsetof(Place, process), 0, NULL},
    {"held", T_BOOL, offsetof(Place, held), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef place_properties[] = {
    {"mapped", (getter)place_mapped, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef place_methods[] = {
    {"map", (PyCFunction)place_map, METH_VARARGS, map_doc},
    {"unmap", (PyCFunction)place_unmap, METH_NOARGS, unmap_doc},
    {"append", (PyCFunction)place_append, METH_O, append_doc},
    {"settle", place_settle, METH_NOARGS, settle_doc},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot place_slots[] = {
    {Py_tp_init, place_init}, {Py_tp_dealloc, place_free}, {Py_tp_members, place_members},
    {Py_tp_getset, place_properties}, {Py_tp_methods, place_methods},
    {Py_tp_doc, "Where in a segment the next line goes."}, {0, NULL},
};
static PyType_Spec place_spec = {"auditspan_seal._native.Place", sizeof(Place), 0, Py_TPFLAGS_DEFAULT, place_slots};

#endif
