// SPDX-License-Identifier: Apache-2.0
// The type Recorder: makes the lines of usual spans, and writes them where nothing else is to be looked after.

#ifndef AUDITSPAN_RECORDER_H
#define AUDITSPAN_RECORDER_H

#include "span.h"

#define LOOK_AFTER 16  // lines after which Python's code is to look after the rest: the disk budget, its thread, what was lost

PyDoc_STRVAR(recorder_doc,
"Recorder(type, record_id, kinds, codes, names, fixed, origin, version, place)\n--\n\n"
"Makes the lines of spans.\n\n"
"Args:\n"
"    type: the class of the spans that it knows; none that is made of it.\n"
"    record_id: name of the attribute that an audit span has.\n"
"    kinds, codes: tuples of pairs of what a span may have, and how it is written.\n"
"    names: a dictionary of names of spans, and how they are written.\n"
"    fixed: a dictionary of identities of resource and scope and the segment, together, and of tuples of resource,\n"
"        scope, and how the three are written.\n"
"    origin, version: bytes that are written as they are.\n"
"    place: where lines are written; None: nowhere.");

// Another thread may come in while Python's code runs: each takes the buffers away while it uses them.
static void take_spare(Recorder *self, Out taken[3]) {
    memcpy(taken, self->spare, sizeof self->spare);
    memset(self->spare, 0, sizeof self->spare);
    for (int i = 0; i < 3; i++) taken[i].size = 0;
}

static void give_back(Recorder *self, Out taken[3]) {
    for (int i = 0; i < 3; i++) {
        if (self->spare[i].start == NULL && !taken[i].failed && taken[i].room <= 65536) self->spare[i] = taken[i];
        else free(taken[i].start);
    }
}

static int can_make(const Recorder *self, PyObject *span) {
    return self->usual != Py_None && Py_TYPE(span) == self->type && self->state != NULL && PyTuple_Check(self->state);
}

PyDoc_STRVAR(parts_doc,
"parts(span, segment)\n--\n\n"
"Return what stands before and after the running number in the line of a span; None: it is not usual.");

static PyObject *recorder_parts(Recorder *self, PyObject *args) {
    PyObject *span, *segment, *result = NULL;
    if (!PyArg_ParseTuple(args, "OU", &span, &segment)) return NULL;
    if (!can_make(self, span)) Py_RETURN_NONE;
    Out out[3];
    take_spare(self, out);
    int usual = write_parts(&out[0], &out[1], &out[2], self, span, segment);
    if (usual == 1 && (out[0].failed || out[1].failed || out[2].failed)) PyErr_NoMemory();
    else if (usual == 1) result = Py_BuildValue("(y#y#)", out[0].start, (Py_ssize_t)out[0].size, out[1].start, (Py_ssize_t)out[1].size);
    else if (usual == 0) { Py_INCREF(Py_None); result = Py_None; }
    give_back(self, out);
    return result;
}

static int may_write(const Recorder *self) {
    const Place *place = self->place;
    return place != NULL && !place->held && place->map != NULL && place->segment != NULL && place->size < place->limit
        && place->process == (long long)getpid();
}

// Record a span; 1: done, 0: Python's code is to do it, -1: an exception.
static int record(Recorder *self, PyObject *span) {
    if (!may_write(self) || !can_make(self, span)) return 0;
    Place *place = self->place;
    PyObject *segment = place->segment;
    Out out[3];
    take_spare(self, out);
    Py_INCREF(segment);
    int usual = write_parts(&out[0], &out[1], &out[2], self, span, segment);
    // From here on nothing of Python runs. Before, it may have: so it is asked again.
    if (usual == 1) {
        char digits[20];
        size_t at = sizeof digits;
        uint64_t number = (uint64_t)place->lines + 1;
        do { digits[--at] = (char)('0' + number % 10); } while (number /= 10);
        Slice pieces[3] = {{out[0].start, out[0].size}, {digits + at, sizeof digits - at}, {out[1].start, out[1].size}};
        size_t size = out[0].size + (sizeof digits - at) + out[1].size + 1;
        usual = !(out[0].failed || out[1].failed || out[2].failed) && may_write(self) && place->segment == segment
            && has_room(place, size);
        if (usual) {
            store(place, pieces, 3, size);
            self->count++;
        }
    }
    Py_DECREF(segment);
    give_back(self, out);
    return usual;
}

PyDoc_STRVAR(record_doc, "record(span)\n--\n\nRecord a finished span; tell whether that is done.");

static PyObject *recorder_record(Recorder *self, PyObject *span) {
    int done = record(self, span);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

PyDoc_STRVAR(end_doc,
"end(span)\n--\n\n"
"Record a finished span, if it is an audit span and nothing else is to be looked after.\n\n"
"Returns:\n"
"    whether there is nothing more to do: it is recorded, or it is no audit span.");

static PyObject *recorder_end(Recorder *self, PyObject *span) {
    if (Py_TYPE(span) != self->type) Py_RETURN_FALSE;
    PyObject *attributes = PyObject_GetAttr(span, known.attributes);
    PyObject *given = attributes == NULL ? NULL : PyObject_GetAttr(attributes, known.dict);
    int is_audit = given != NULL && PyDict_CheckExact(given) ? PyDict_Contains(given, self->record_id) : -1;
    Py_XDECREF(given); Py_XDECREF(attributes);
    if (is_audit < 0) { PyErr_Clear(); Py_RETURN_FALSE; }
    int done = !is_audit || (self->place != NULL && self->place->lines % LOOK_AFTER != 0 ? record(self, span) : 0);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

PyDoc_STRVAR(learn_doc,
"learn(texts, names, look, personal, alike)\n--\n\n"
"Say what the guard need not be asked; without arguments: it must be asked everything.\n\n"
"Args:\n"
"    texts: a set of texts that are known to have no secret in them.\n"
"    names: a set of tuples of names of attributes that are known to announce no secret.\n"
"    look: called with any other text; it returns the same object if there is no secret in it.\n"
"    personal: a set of the names whose values are only committed to.\n"
"    alike: called with a text; True: no text that differs from it in nothing but digits has a secret in it either.");

static PyObject *recorder_learn(Recorder *self, PyObject *args) {
    PyObject *texts, *names, *look, *personal, *alike, *usual = Py_None;
    if (PyTuple_Size(args) != 0) {
        if (!PyArg_ParseTuple(args, "OOOOO", &texts, &names, &look, &personal, &alike)) return NULL;
        if (!PyAnySet_Check(texts) || !PyAnySet_Check(names) || !PyAnySet_Check(personal) || !PyCallable_Check(look)
            || !PyCallable_Check(alike)) {
            PyErr_SetString(PyExc_TypeError, "sets, and what can be called, are expected");
            return NULL;
        }
        usual = args;
    }
    PyObject *old = self->usual;
    Py_INCREF(usual);
    self->usual = usual;
    memset(self->shapes, 0, sizeof self->shapes);
    for (int i = 0; i < MOST_LAYOUTS; i++) {
        Layout *layout = self->layouts[i];
        self->layouts[i] = NULL;
        let_go(layout);
    }
    Py_DECREF(old);
    Py_RETURN_NONE;
}

static void recorder_free(Recorder *self) {
    PyObject *all[] = {(PyObject *)self->type, self->record_id, self->kinds, self->codes, self->names, self->fixed,
                       self->origin, self->version, self->state, self->usual, (PyObject *)self->place};
    for (int i = 0; i < MOST_LAYOUTS; i++) let_go(self->layouts[i]);
    for (int i = 0; i < 3; i++) free(self->spare[i].start);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) Py_XDECREF(all[i]);
    free_object((PyObject *)self);
}

static PyTypeObject *place_type;

static PyObject *recorder_new(PyTypeObject *type, PyObject *args, PyObject *names_) {
    PyObject *spans, *record_id, *kinds, *codes, *names, *fixed, *origin, *version, *place;
    if (names_ != NULL && PyDict_Size(names_) != 0) { PyErr_SetString(PyExc_TypeError, "only arguments by their place"); return NULL; }
    if (!PyArg_ParseTuple(args, "O!UO!O!O!O!SSO", &PyType_Type, &spans, &record_id, &PyTuple_Type, &kinds, &PyTuple_Type,
                          &codes, &PyDict_Type, &names, &PyDict_Type, &fixed, &origin, &version, &place)) return NULL;
    if (place != Py_None && Py_TYPE(place) != place_type) { PyErr_SetString(PyExc_TypeError, "a Place is expected"); return NULL; }
    Recorder *self = (Recorder *)PyType_GenericAlloc(type, 0);
    if (self == NULL) return NULL;
    self->type = (PyTypeObject *)spans; self->record_id = record_id; self->kinds = kinds; self->codes = codes;
    self->names = names; self->fixed = fixed; self->origin = origin; self->version = version;
    self->state = self->usual = Py_None;
    self->place = place == Py_None ? NULL : (Place *)place;
    Py_INCREF(spans); Py_INCREF(record_id); Py_INCREF(kinds); Py_INCREF(codes); Py_INCREF(names); Py_INCREF(fixed);
    Py_INCREF(origin); Py_INCREF(version); Py_INCREF(Py_None); Py_INCREF(Py_None); Py_XINCREF((PyObject *)self->place);
    return (PyObject *)self;
}

static PyMemberDef recorder_members[] = {
    {"state", T_OBJECT_EX, offsetof(Recorder, state), 0, NULL},
    {"count", T_PYSSIZET, offsetof(Recorder, count), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyMethodDef recorder_methods[] = {
    {"parts", (PyCFunction)recorder_parts, METH_VARARGS, parts_doc},
    {"record", (PyCFunction)recorder_record, METH_O, record_doc},
    {"end", (PyCFunction)recorder_end, METH_O, end_doc},
    {"learn", (PyCFunction)recorder_learn, METH_VARARGS, learn_doc},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot recorder_slots[] = {
    {Py_tp_new, recorder_new}, {Py_tp_dealloc, recorder_free}, {Py_tp_members, recorder_members},
    {Py_tp_methods, recorder_methods}, {Py_tp_doc, (void *)recorder_doc}, {0, NULL},
};
static PyType_Spec recorder_spec = {"auditspan_seal._native.Recorder", sizeof(Recorder), 0, Py_TPFLAGS_DEFAULT, recorder_slots};

#endif
