/* SPDX-License-Identifier: Apache-2.0 */
/* Protobuf from the network: what is taken is bounded, and comes out the same when it is written and read again. */
#include "fuzz.h"
#include "proto.h"

static const struct proto_field inner[] = {
    {.number = 1, .name = "id", .kind = PROTO_STRING}, {.number = 2, .name = "n", .kind = PROTO_NUMBER}, {0}};
static const struct proto_field outer[] = {{.number = 1, .name = "text", .kind = PROTO_STRING},
					   {.number = 2, .name = "raw", .kind = PROTO_BYTES},
					   {.number = 3, .name = "count", .kind = PROTO_NUMBER},
					   {.number = 4, .name = "one", .kind = PROTO_MESSAGE, .message = inner},
					   {.number = 5, .name = "many", .kind = PROTO_MESSAGE, .repeated = true, .message = inner},
					   {.number = 6, .name = "words", .kind = PROTO_STRING, .repeated = true},
					   {.number = 7, .name = "self", .kind = PROTO_MESSAGE, .message = outer},
					   {.number = 8, .name = "any", .kind = PROTO_STRUCT},
					   {0}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buffer first = buffer_of(1 << 20), second = buffer_of(1 << 20);
	json_t *msg = NULL, *again = NULL, *any;

	if (!proto_decode(outer, data, size, &msg)) {
		CHECK(!proto_encode(outer, msg, &first));
		CHECK(first.len <= size + 16 * 8); /* what is not known goes, lengths are spelled shortest */
		CHECK(!proto_decode(outer, first.p ? first.p : "", first.len, &again));
		CHECK(!proto_encode(outer, again, &second));
		CHECK(first.len == second.len && (!first.len || memcmp(first.p, second.p, first.len) == 0));
	}
	json_decref(msg);
	json_decref(again);
	/* any JSON as a Struct */
	any = json_loadb((const char *)data, size, 0, NULL);
	msg = json_pack("{s:o}", "any", any ? any : json_object());
	buffer_free(&first);
	first = buffer_of(1 << 20);
	again = NULL;
	if (msg && !proto_encode(outer, msg, &first))
		CHECK(!proto_decode(outer, first.p, first.len, &again));
	json_decref(again);
	json_decref(msg);
	buffer_free(&first);
	buffer_free(&second);
	return 0;
}
