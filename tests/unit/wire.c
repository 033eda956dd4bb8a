/* SPDX-License-Identifier: Apache-2.0 */
/* Frames between the converter and its workers: whatever arrives in whatever pieces. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "wire.h"

struct ends {
	int fd[2];
	struct wire a, b;
};

static int set_up(void **state)
{
	struct ends *e = calloc(1, sizeof(*e));

	if (!e || socketpair(AF_UNIX, SOCK_STREAM, 0, e->fd))
		return -1;
	wire_init(&e->a, e->fd[0]);
	wire_init(&e->b, e->fd[1]);
	*state = e;
	return 0;
}

static int tear_down(void **state)
{
	struct ends *e = *state;

	wire_free(&e->a);
	wire_free(&e->b);
	close_fd(&e->fd[0]);
	close_fd(&e->fd[1]);
	free(e);
	return 0;
}

static void test_many(void **state)
{
	struct ends *e = *state;
	struct wire_frame f;
	uint8_t data[5000];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(wire_send(&e->a, (uint16_t)i, i * 1000000007ull, data, i * 250), 0);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(wire_recv(&e->b, &f), 0);
		assert_int_equal(f.type, i);
		assert_int_equal(f.id, i * 1000000007ull);
		assert_int_equal(f.len, i * 250);
		assert_memory_equal(f.p, data, f.len);
		assert_int_equal(wire_waiting(&e->b), i < 19); /* all of them fitted into one read */
	}
	close_fd(&e->fd[0]);
	e->fd[0] = -1;
	assert_int_equal(wire_recv(&e->b, &f), -EPIPE);
}

/* Byte by byte, larger than the buffer it begins with. */
static void test_pieces(void **state)
{
	struct ends *e = *state;
	struct wire_frame f;
	size_t len = 150000, fill = 0;
	uint8_t *data = malloc(len), *raw = malloc(len + 100);
	int big = 1 << 20;

	assert_non_null(data);
	assert_non_null(raw);
	memset(data, 0x5a, len);
	data[len - 1] = 1;
	setsockopt(e->fd[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	assert_int_equal(wire_send(&e->a, 3, 9, data, len), 0);
	while (fill < len + 24) {
		ssize_t n = recv(e->fd[1], raw + fill, len + 100 - fill, 0);

		assert_true(n > 0);
		fill += (size_t)n;
	}
	assert_int_equal(fill, len + 24);
	for (size_t i = 0; i < 30; i++)
		assert_int_equal(send(e->fd[0], raw + i, 1, 0), 1);
	assert_int_equal(send(e->fd[0], raw + 30, fill - 30, 0), fill - 30);
	assert_int_equal(wire_recv(&e->b, &f), 0);
	assert_int_equal(f.len, len);
	assert_memory_equal(f.p, data, len);
	free(data);
	free(raw);
}

static void test_bad(void **state)
{
	struct ends *e = *state;
	struct wire_frame f;
	uint8_t head[24];

	assert_int_equal(wire_send(&e->a, 1, 2, NULL, WIRE_MAX + 1), -EMSGSIZE);
	assert_int_equal(wire_send(&e->a, 1, 2, "x", 1), 0);
	assert_int_equal(recv(e->fd[1], head, sizeof(head), 0), sizeof(head));
	assert_int_equal(recv(e->fd[1], &(char){0}, 1, 0), 1);
	for (size_t at = 0; at < sizeof(head); at++) { /* type and id are free, all else must be right */
		uint8_t bad[24];
		struct wire w;
		bool is_free = (at >= 4 && at < 6) || (at >= 8 && at < 16);

		memcpy(bad, head, sizeof(bad));
		bad[at] ^= 0x40;
		wire_init(&w, e->fd[1]);
		assert_int_equal(send(e->fd[0], bad, sizeof(bad), 0), sizeof(bad));
		assert_int_equal(send(e->fd[0], "x", 1, 0), 1);
		assert_int_equal(wire_recv(&w, &f), is_free ? 0 : -EPROTO);
		wire_free(&w);
	}
	/* a peer that died inside a frame */
	assert_int_equal(send(e->fd[0], head, 20, 0), 20);
	close_fd(&e->fd[0]);
	e->fd[0] = -1;
	assert_int_equal(wire_recv(&e->b, &f), -EPIPE);
	assert_int_equal(wire_send(&e->b, 1, 2, "x", 1), -EPIPE);
}

static void test_peek(void **state)
{
	struct ends *e = *state;
	struct wire_frame f, g;
	uint8_t data[70000] = {1, 2, 3};

	assert_int_equal(wire_send(&e->a, 1, 10, data, 100), 0);
	assert_int_equal(wire_recv(&e->b, &f), 0);
	assert_int_equal(wire_peek(&e->b, &g), 0); /* does not wait */
	assert_int_equal(wire_send(&e->a, 2, 11, data, sizeof(data)), 0);
	/* larger than what is read ahead: it comes in parts */
	for (unsigned i = 0; i < 10 && wire_peek(&e->b, &g) == 0; i++)
		;
	assert_int_equal(wire_peek(&e->b, &g), 1);
	assert_int_equal(g.id, 11);
	assert_int_equal(g.len, sizeof(data));
	assert_memory_equal(g.p, data, sizeof(data));
	assert_int_equal(wire_send(&e->a, 3, 12, "x", 1), 0);
	assert_int_equal(wire_recv(&e->b, &f), 0); /* it is still there */
	assert_int_equal(f.id, 11);
	assert_memory_equal(f.p, data, sizeof(data));
	assert_int_equal(wire_recv(&e->b, &f), 0);
	assert_int_equal(f.id, 12);
	close_fd(&e->fd[0]);
	e->fd[0] = -1;
	assert_int_equal(wire_peek(&e->b, &g), 0);
	assert_int_equal(wire_recv(&e->b, &f), -EPIPE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_pieces, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_peek, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_bad, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
