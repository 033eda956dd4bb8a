/* SPDX-License-Identifier: Apache-2.0 */
/* First sectors and size hints: what parses is written back bit for bit. */
#include "fuzz.h"
#include "record.h"

static const struct secret key = {{1}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t sector[SECTOR] = {0}, again[SECTOR];
	struct record r, r2;
	struct hint h;
	uint32_t crc, crc2;

	CHECK(hint_parse(data, size, size, &key, &h)); /* nobody guesses a MAC */
	if (size > SECTOR)
		size = SECTOR;
	memcpy(sector, data, size);
	if (record_parse(sector, NULL, &r, &crc) || r.state == RECORD_VOID)
		return 0;
	CHECK(r.s >= SEG_MIN && r.s <= SEG_MAX && r.size <= PLAIN_MAX);
	CHECK(r.state == RECORD_NEW || r.tail_off == tail_offset(r.size, r.s));
	CHECK(!record_sector(&r, crc, &key, again));
	memcpy(sector + 63 + 208, again + 63 + 208, MAC_LEN); /* the MAC alone may differ */
	CHECK(!memcmp(sector, again, SECTOR));
	CHECK(!record_parse(again, &key, &r2, &crc2) && crc2 == crc && !memcmp(r.seal, r2.seal, MAC_LEN));
	return 0;
}
