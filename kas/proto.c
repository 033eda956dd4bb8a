/* SPDX-License-Identifier: Apache-2.0 */
#include "proto.h"

#include <errno.h>

#include "encode.h"

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LEN = 2, WIRE_FIXED32 = 5 };

static size_t varint_make(uint64_t v, uint8_t ret[static 10])
{
	size_t n = 0;

	for (; v > 0x7f; v >>= 7)
		ret[n++] = (uint8_t)(v | 0x80);
	ret[n++] = (uint8_t)v;
	return n;
}

static void put_varint(struct buffer *out, uint64_t v)
{
	uint8_t b[10];

	buffer_put(out, b, varint_make(v, b));
}

static void put_tag(struct buffer *out, uint32_t number, enum wire wire)
{
	put_varint(out, (uint64_t)number << 3 | wire);
}

static void put_bytes(struct buffer *out, uint32_t number, const void *p, size_t len)
{
	put_tag(out, number, WIRE_LEN);
	put_varint(out, len);
	buffer_put(out, p, len);
}

/* A field whose length is known when it is there: put its content behind the tag, then the length in between. */
static size_t open_field(struct buffer *out, uint32_t number)
{
	put_tag(out, number, WIRE_LEN);
	return out->len;
}

static void close_field(struct buffer *out, size_t at)
{
	uint8_t b[10];

	if (!buffer_error(out))
		buffer_insert(out, at, b, varint_make(out->len - at, b));
}

static int put_struct(struct buffer *out, uint32_t number, const json_t *object, unsigned depth);

/* google.protobuf.Value */
static int put_value(struct buffer *out, const json_t *v, unsigned depth)
{
	uint64_t bits;
	uint8_t le[8];
	double number;
	size_t i, at;
	json_t *each;

	if (depth > PROTO_DEPTH_MAX)
		return -EPROTO;
	switch (json_typeof(v)) {
	case JSON_NULL:
		put_tag(out, 1, WIRE_VARINT);
		put_varint(out, 0);
		return 0;
	case JSON_INTEGER:
	case JSON_REAL:
		number = json_number_value(v);
		memcpy(&bits, &number, sizeof(bits));
		put_le64(le, bits);
		put_tag(out, 2, WIRE_FIXED64);
		buffer_put(out, le, sizeof(le));
		return 0;
	case JSON_STRING:
		put_bytes(out, 3, json_string_value(v), json_string_length(v));
		return 0;
	case JSON_TRUE:
	case JSON_FALSE:
		put_tag(out, 4, WIRE_VARINT);
		put_varint(out, json_is_true(v));
		return 0;
	case JSON_OBJECT:
		at = open_field(out, 5);
		if (put_struct(out, 1, v, depth + 1))
			return -EPROTO;
		close_field(out, at);
		return 0;
	case JSON_ARRAY:
		at = open_field(out, 6);
		json_array_foreach(v, i, each)
		{
			size_t item = open_field(out, 1);

			if (put_value(out, each, depth + 1))
				return -EPROTO;
			close_field(out, item);
		}
		close_field(out, at);
		return 0;
	}
	return -EPROTO;
}

/* map<string, Value> as field @number: what a Struct is inside, too */
static int put_struct(struct buffer *out, uint32_t number, const json_t *object, unsigned depth)
{
	const char *name;
	json_t *v;

	if (!json_is_object(object))
		return -EPROTO;
	json_object_foreach((json_t *)object, name, v)
	{
		size_t entry = open_field(out, number), value;

		put_bytes(out, 1, name, strlen(name));
		value = open_field(out, 2);
		if (put_value(out, v, depth))
			return -EPROTO;
		close_field(out, value);
		close_field(out, entry);
	}
	return 0;
}

static int put_message(struct buffer *out, const struct proto_field *type, const json_t *msg, unsigned depth);

static int put_map(struct buffer *out, const struct proto_field *f, const json_t *object, unsigned depth)
{
	const char *name;
	json_t *v;

	json_object_foreach((json_t *)object, name, v)
	{
		size_t entry = open_field(out, f->number), value;

		put_bytes(out, 1, name, strlen(name));
		value = open_field(out, 2);
		if (put_message(out, f->message, v, depth + 1))
			return -EPROTO;
		close_field(out, value);
		close_field(out, entry);
	}
	return 0;
}

static int put_base64(struct buffer *out, uint32_t number, const char *text, size_t len)
{
	CLEANUP_FREE uint8_t *raw = malloc(len / 4 * 3 + 3);
	size_t n = 0;

	if (!raw)
		return -ENOMEM;
	if (base64_decode(text, len, true, raw, len / 4 * 3 + 3, &n))
		return -EPROTO;
	put_bytes(out, number, raw, n);
	return 0;
}

/* One element. */
static int put_field(struct buffer *out, const struct proto_field *f, const json_t *v, unsigned depth)
{
	size_t at;
	int err;

	switch (f->kind) {
	case PROTO_STRING:
	case PROTO_BYTES:
		if (!json_is_string(v))
			return -EPROTO;
		if (!json_string_length(v) && !f->repeated)
			return 0;
		if (f->kind == PROTO_BYTES)
			return put_base64(out, f->number, json_string_value(v), json_string_length(v));
		put_bytes(out, f->number, json_string_value(v), json_string_length(v));
		return 0;
	case PROTO_NUMBER:
		if (!json_is_integer(v) || json_integer_value(v) < 0)
			return -EPROTO;
		if (json_integer_value(v)) {
			put_tag(out, f->number, WIRE_VARINT);
			put_varint(out, (uint64_t)json_integer_value(v));
		}
		return 0;
	case PROTO_MESSAGE:
		at = open_field(out, f->number);
		err = put_message(out, f->message, v, depth + 1);
		close_field(out, at);
		return err;
	case PROTO_MAP:
		return json_is_object(v) ? put_map(out, f, v, depth) : -EPROTO;
	case PROTO_STRUCT:
		at = open_field(out, f->number);
		err = put_struct(out, 1, v, 0);
		close_field(out, at);
		return err;
	case PROTO_VALUES:
		return put_struct(out, f->number, v, 0);
	}
	return -EPROTO;
}

static int put_message(struct buffer *out, const struct proto_field *type, const json_t *msg, unsigned depth)
{
	if (!json_is_object(msg) || depth > PROTO_DEPTH_MAX)
		return -EPROTO;
	for (const struct proto_field *f = type; f->number; f++) {
		const json_t *v = json_object_get(msg, f->name);
		json_t *each;
		size_t i;
		int err = 0;

		if (!v || json_is_null(v))
			continue;
		if (!f->repeated) {
			err = put_field(out, f, v, depth);
		} else if (!json_is_array(v)) {
			err = -EPROTO;
		} else {
			json_array_foreach(v, i, each) if (!err) err = put_field(out, f, each, depth);
		}
		if (err)
			return err;
	}
	return 0;
}

int proto_encode(const struct proto_field *type, const json_t *msg, struct buffer *out)
{
	int err = put_message(out, type, msg, 0);

	return err ? err : buffer_error(out);
}

struct input {
	const uint8_t *p;
	size_t left;
};

static int get_varint(struct input *in, uint64_t *ret)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && in->left; shift += 7) {
		uint8_t b = *in->p++;

		in->left--;
		if (shift == 63 && b > 1)
			return -EPROTO;
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80)) {
			*ret = v;
			return 0;
		}
	}
	return -EPROTO;
}

/* The next field: its content in @ret_v (WIRE_VARINT) or @ret_content (WIRE_LEN). */
static int get_field(struct input *in, uint64_t *ret_number, enum wire *ret_wire, uint64_t *ret_v, struct input *ret_content)
{
	uint64_t tag, n = 0;

	if (get_varint(in, &tag) || !(tag >> 3) || tag >> 3 > 0x1fffffff)
		return -EPROTO;
	*ret_number = tag >> 3;
	*ret_wire = (enum wire)(tag & 7);
	switch (tag & 7) {
	case WIRE_VARINT:
		return get_varint(in, ret_v);
	case WIRE_FIXED64:
		n = 8;
		break;
	case WIRE_FIXED32:
		n = 4;
		break;
	case WIRE_LEN:
		if (get_varint(in, &n))
			return -EPROTO;
		break;
	default: /* groups: proto3 has none */
		return -EPROTO;
	}
	if (n > in->left)
		return -EPROTO;
	*ret_content = (struct input){in->p, n};
	in->p += n;
	in->left -= n;
	return 0;
}

static json_t *base64_json(const uint8_t *p, size_t len)
{
	CLEANUP_FREE char *text = malloc(BASE64_LEN(len) + 1);

	if (!text)
		return NULL;
	base64_encode(p, len, text);
	return json_string(text);
}

static int get_message(struct input in, const struct proto_field *type, unsigned depth, json_t **ret);

/* @ret: NULL for a kind that is not read */
static int get_element(const struct proto_field *f, enum wire wire, uint64_t v, struct input content, unsigned depth, json_t **ret)
{
	*ret = NULL;
	switch (f->kind) {
	case PROTO_NUMBER:
		if (wire != WIRE_VARINT || v > INT64_MAX)
			return -EPROTO;
		*ret = json_integer((json_int_t)v);
		break;
	case PROTO_STRING:
		if (wire != WIRE_LEN)
			return -EPROTO;
		*ret = json_stringn((const char *)content.p, content.left);
		if (!*ret) /* not UTF-8, or memory is short */
			return -EPROTO;
		break;
	case PROTO_BYTES:
		if (wire != WIRE_LEN)
			return -EPROTO;
		*ret = base64_json(content.p, content.left);
		break;
	case PROTO_MESSAGE:
		return wire == WIRE_LEN ? get_message(content, f->message, depth + 1, ret) : -EPROTO;
	default:
		return 0;
	}
	return *ret ? 0 : -ENOMEM;
}

/* Into the message; takes the reference @v over. */
static int set_member(json_t *msg, const struct proto_field *f, json_t *v)
{
	json_t *list;

	if (!f->repeated) /* the last one counts */
		return json_object_set_new(msg, f->name, v) ? -ENOMEM : 0;
	list = json_object_get(msg, f->name);
	if (!list && (json_object_set_new(msg, f->name, json_array()) || !(list = json_object_get(msg, f->name)))) {
		json_decref(v);
		return -ENOMEM;
	}
	if (json_array_size(list) >= PROTO_REPEATED_MAX) {
		json_decref(v);
		return -EPROTO;
	}
	return json_array_append_new(list, v) ? -ENOMEM : 0;
}

static int get_members(struct input in, const struct proto_field *type, unsigned depth, json_t *msg)
{
	while (in.left) {
		struct input content = {NULL, 0};
		uint64_t number = 0, v = 0;
		enum wire wire = WIRE_VARINT;
		const struct proto_field *f = type;
		json_t *member;
		int err = get_field(&in, &number, &wire, &v, &content);

		if (err)
			return err;
		while (f->number && f->number != number)
			f++;
		if (!f->number)
			continue;
		err = get_element(f, wire, v, content, depth, &member);
		if (!err && member)
			err = set_member(msg, f, member);
		if (err)
			return err;
	}
	return 0;
}

static int get_message(struct input in, const struct proto_field *type, unsigned depth, json_t **ret)
{
	json_t *msg;
	int err;

	if (depth > PROTO_DEPTH_MAX)
		return -EPROTO;
	msg = json_object();
	if (!msg)
		return -ENOMEM;
	err = get_members(in, type, depth, msg);
	if (err)
		json_decref(msg);
	else
		*ret = msg;
	return err;
}

int proto_decode(const struct proto_field *type, const void *p, size_t len, json_t **ret)
{
	return get_message((struct input){p, len}, type, 0, ret);
}
