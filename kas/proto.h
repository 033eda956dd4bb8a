/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol Buffers' wire form (proto3) of the few messages a KAS exchanges, as JSON: the server deals in JSON alone.
 *
 * A message is described by a table.  What JSON calls a member, with the same name as Connect has it, is a field there: strings as they
 * are, bytes as base64, google.protobuf.Struct as an object.  Fields that the table does not have are skipped.  Pure; thread-safe; fuzzed
 * (tests/fuzz/proto.c). Source: protobuf.dev/programming-guides/encoding.
 */
#ifndef TDFS_PROTO_H
#define TDFS_PROTO_H

#include <jansson.h>

#include "buffer.h"

enum proto_kind {
	PROTO_STRING,
	PROTO_BYTES,   /* base64 in JSON */
	PROTO_NUMBER,  /* a non-negative integer (varint) */
	PROTO_MESSAGE, /* described by .message */
	PROTO_MAP,     /* map<string, .message>: an object of objects */
	PROTO_STRUCT,  /* google.protobuf.Struct: any object */
	PROTO_VALUES,  /* map<string, google.protobuf.Value>: any object */
};

struct proto_field {
	uint32_t number; /* 0 ends the table */
	const char *name;
	enum proto_kind kind;
	bool repeated; /* an array in JSON; STRING and MESSAGE only */
	const struct proto_field *message;
};

#define PROTO_REPEATED_MAX 4096 /* elements of one repeated field */
#define PROTO_DEPTH_MAX 16

/** proto_encode() - append @msg; members that are absent, null, "", 0 or [] are left out, as proto3 has it; members without a field too
 * 0; -EPROTO a member of another type than its field; -EFBIG; -ENOMEM */
int proto_encode(const struct proto_field *type, const json_t *msg, struct buffer *out) MUST_CHECK;

/** proto_decode() - a message of @len bytes; no bytes are an empty message.  Reads STRING, BYTES, NUMBER and MESSAGE fields; others are
 * checked for their length and skipped. 0; -EPROTO cut off, wrong wire type, not UTF-8, or more than the limits above; -ENOMEM.  Free with
 * json_decref(). */
int proto_decode(const struct proto_field *type, const void *p, size_t len, json_t **ret) MUST_CHECK;

#endif
