/* SPDX-License-Identifier: Apache-2.0 */
/* url.c and address.c: what may be connected to, and the many ways to write what may not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "report.h"
#include "url.h"

static void test_good(void **state)
{
	static const struct {
		const char *text, *host, *path, *back;
		uint16_t port;
		enum url_host kind;
	} good[] = {
	    {"https://kas.example.org", "kas.example.org", "", "https://kas.example.org", 443, URL_NAME},
	    {"HTTPS://KAS.Example.Org:443/Kas/", "kas.example.org", "/Kas", "https://kas.example.org/Kas", 443, URL_NAME},
	    {"https://kas.example.org:8443/kas", "kas.example.org", "/kas", "https://kas.example.org:8443/kas", 8443, URL_NAME},
	    {"https://xn--ks-xka.example", "xn--ks-xka.example", "", "https://xn--ks-xka.example", 443, URL_NAME},
	    {"https://kas", "kas", "", "https://kas", 443, URL_NAME},
	    {"https://192.0.2.1/a", "192.0.2.1", "/a", "https://192.0.2.1/a", 443, URL_IPV4},
	    {"https://[2001:DB8:0::1]:1/", "2001:db8::1", "", "https://[2001:db8::1]:1", 1, URL_IPV6},
	    {"http://localhost:8080/kas", "localhost", "/kas", "http://localhost:8080/kas", 8080, URL_LOCALHOST},
	    {"http://LOCALHOST", "localhost", "", "http://localhost", 80, URL_LOCALHOST},
	    {"http://127.0.0.1:1", "127.0.0.1", "", "http://127.0.0.1:1", 1, URL_IPV4},
	    {"http://[::1]:65535/x%2Fy", "::1", "/x%2Fy", "http://[::1]:65535/x%2Fy", 65535, URL_IPV6},
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct url u, again;
		char *back;

		print_message("%s\n", good[i].text);
		assert_int_equal(url_parse(good[i].text, false, &u), 0);
		assert_string_equal(u.host, good[i].host);
		assert_string_equal(u.path, good[i].path);
		assert_int_equal(u.port, good[i].port);
		assert_int_equal(u.kind, good[i].kind);
		back = url_text(&u, NULL);
		assert_string_equal(back, good[i].back);
		assert_int_equal(url_parse(back, false, &again), 0);
		assert_true(url_same_origin(&u, &again));
		free(back);
	}
}

static void test_bad(void **state)
{
	static const char *const bad[] = {
	    "",
	    "kas.example.org",
	    "ftp://kas.example.org",
	    "file:///etc/passwd",
	    "https:/kas.example.org",
	    "https:kas.example.org",
	    "//kas.example.org",
	    "http://kas.example.org",
	    "http://127.0.0.1.example.org",
	    "http://localhost.example.org",
	    "http://10.0.0.1",
	    "http://169.254.169.254/latest",
	    "https://",
	    "https:///kas",
	    "https://:443",
	    "https://user@kas.example.org",
	    "https://user:pw@kas.example.org",
	    "https://kas.example.org@evil.example",
	    "https://kas.example.org:443@evil.example",
	    "https://kas.example.org\\@evil.example",
	    "https://kas.example.org%40evil.example",
	    "https://kas.example.org%00.evil.example",
	    "https://kas.example.org#@evil.example",
	    "https://kas.example.org/#x",
	    "https://kas.example.org/?x",
	    "https://kas.example.org?x",
	    "https://kas.example.org.",
	    "https://kas..example.org",
	    "https://.example.org",
	    "https://-kas.example.org",
	    "https://kas-.example.org",
	    "https://kas_1.example.org",
	    "https://k\xc3\xa4s.example.org",
	    "https://kas.example.org ",
	    " https://kas.example.org",
	    "https://kas.example.org\n",
	    "https://kas.example.org\t/",
	    "https://kas.example.org:0",
	    "https://kas.example.org:",
	    "https://kas.example.org:65536",
	    "https://kas.example.org:0443",
	    "https://kas.example.org:+443",
	    "https://kas.example.org:443x",
	    "https://kas.example.org:99999999999999999999",
	    "https://127.1",
	    "https://2130706433",
	    "https://0x7f000001",
	    "https://0x7f.0.0.1",
	    "https://0177.0.0.1",
	    "https://127.0.0.1.",
	    "https://1.2.3.4.5",
	    "https://256.1.1.1",
	    "https://01.2.3.4",
	    "https://[::1",
	    "https://::1",
	    "https://[::1]x",
	    "https://[fe80::1%25eth0]",
	    "https://[127.0.0.1]",
	    "https://[]",
	    "https://[::g]",
	    "https://kas.example.org/../x",
	    "https://kas.example.org/a/..",
	    "https://kas.example.org/./x",
	    "https://kas.example.org/%zz",
	    "https://kas.example.org/a\"b",
	    "https://kas.example.org/<a>",
	    "javascript:alert(1)",
	    "https://kas.example.org:443:443",
	    "https://a.example,b.example",
	};
	char big[URL_MAX + 10];
	struct url u;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int err = url_parse(bad[i], false, &u);

		if (err != -EINVAL)
			print_message("accepted: %s\n", bad[i]);
		assert_int_equal(err, -EINVAL);
	}
	memset(big, 'a', sizeof(big));
	memcpy(big, "https://kas.example.org/", 24);
	big[URL_MAX] = 0;
	assert_int_equal(url_parse(big, false, &u), -EINVAL);
	big[URL_MAX - 1] = 0;
	assert_int_equal(url_parse(big, false, &u), 0);
	memset(big + 8, 'a', 64);
	big[8 + 64] = 0;
	assert_int_equal(url_parse(big, false, &u), -EINVAL); /* a label of 64 */
	assert_int_equal(url_parse("https://id.example/token?p=x", true, &u), 0);
	assert_string_equal(u.path, "/token?p=x");
}

static void test_origin(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} cases[] = {
	    {"https://kas.example.org/kas", "https://KAS.example.org:443/other", true},
	    {"https://kas.example.org", "https://kas.example.org:8443", false},
	    {"https://kas.example.org", "https://kas.example.org.evil.example", false},
	    {"https://kas.example.org", "https://evil-kas.example.org", false},
	    {"https://localhost:80", "http://localhost:80", false},
	    {"http://localhost:80", "http://127.0.0.1:80", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct url a, b;

		assert_int_equal(url_parse(cases[i].a, false, &a), 0);
		assert_int_equal(url_parse(cases[i].b, false, &b), 0);
		assert_int_equal(url_same_origin(&a, &b), cases[i].same);
	}
}

static int check(const char *url, const char *allow, const char *address)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	struct sockaddr_in four = {.sin_family = AF_INET};
	struct address_list list;
	struct url u;

	assert_int_equal(url_parse(url, false, &u), 0);
	assert_int_equal(address_list_parse(allow, &list), 0);
	if (inet_pton(AF_INET, address, &four.sin_addr) == 1)
		return address_check(&u, &list, (struct sockaddr *)&four);
	assert_int_equal(inet_pton(AF_INET6, address, &six.sin6_addr), 1);
	return address_check(&u, &list, (struct sockaddr *)&six);
}

static void test_addresses(void **state)
{
	static const char *const public[] = {"1.1.1.1",    "9.255.255.255",  "11.0.0.0",         "172.15.0.1",      "172.32.0.1",
					     "100.63.0.1", "100.128.0.1",    "192.167.1.1",      "223.255.255.255", "2606:4700::1111",
					     "2a00::1",    "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"};
	static const char *const inner[] = {"0.0.0.0",
					    "0.1.2.3",
					    "10.0.0.1",
					    "10.255.255.255",
					    "100.64.0.1",
					    "100.127.255.255",
					    "127.0.0.1",
					    "127.255.255.255",
					    "169.254.169.254",
					    "172.16.0.1",
					    "172.31.255.255",
					    "192.168.0.1",
					    "198.18.0.1",
					    "224.0.0.1",
					    "240.0.0.1",
					    "255.255.255.255",
					    "::",
					    "::1",
					    "fe80::1",
					    "fec0::1",
					    "fc00::1",
					    "fd12::1",
					    "ff02::1",
					    "::ffff:10.0.0.1",
					    "::ffff:169.254.169.254",
					    "::ffff:127.0.0.1",
					    "::127.0.0.1",
					    "64:ff9b::a9fe:a9fe",
					    "64:ff9b::7f00:1",
					    "2002:7f00:1::1",
					    "2002:a9fe:a9fe::",
					    "2001::1",
					    "64:ff9b:1::1",
					    "100::1",
					    "4000::1"};

	for (size_t i = 0; i < ARRAY_SIZE(public); i++)
		assert_int_equal(check("https://kas.example.org", NULL, public[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(inner); i++) {
		if (check("https://kas.example.org", NULL, inner[i]) != -EPERM)
			print_message("taken: %s\n", inner[i]);
		assert_int_equal(check("https://kas.example.org", NULL, inner[i]), -EPERM);
		assert_int_equal(check("https://kas.example.org", inner[i], inner[i]), 0);
	}
	/* listed nets, and their edges */
	assert_int_equal(check("https://kas.example.org", "10.1.0.0/16, fd00::/9", "10.1.255.255"), 0);
	assert_int_equal(check("https://kas.example.org", "10.1.0.0/16, fd00::/9", "10.2.0.0"), -EPERM);
	assert_int_equal(check("https://kas.example.org", "10.1.0.0/16, fd00::/9", "fd7f::1"), 0);
	assert_int_equal(check("https://kas.example.org", "10.1.0.0/16, fd00::/9", "fd80::1"), -EPERM);
	assert_int_equal(check("https://kas.example.org", "10.1.0.0/16", "::ffff:10.1.2.3"), 0);
	/* loopback is fine where the URL itself says so, and there alone */
	assert_int_equal(check("http://localhost", NULL, "127.0.0.1"), 0);
	assert_int_equal(check("http://localhost", NULL, "::1"), 0);
	assert_int_equal(check("https://127.0.0.1", NULL, "127.0.0.1"), 0);
	assert_int_equal(check("http://localhost", NULL, "1.1.1.1"), -EPERM); /* a resolver that lies */
	assert_int_equal(check("http://localhost", "1.1.1.1", "1.1.1.1"), -EPERM);
	assert_int_equal(check("http://localhost", "10.0.0.0/8", "10.0.0.1"), -EPERM);
	assert_int_equal(check("https://localhost", NULL, "10.0.0.1"), -EPERM);
}

static void test_lists(void **state)
{
	static const char *const bad[] = {"kas.example.org", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/",
					  "10.0.0.0/8x",     "fd00::/129",  "10.0.0",      "/8"};
	struct address_list list;
	char many[ADDRESS_LIST_MAX * 10 + 20] = "";

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(address_list_parse(bad[i], &list), -EINVAL);
	for (size_t i = 0; i <= ADDRESS_LIST_MAX; i++)
		strcat(many, "10.0.0.1 ");
	assert_int_equal(address_list_parse(many, &list), -EINVAL);
	assert_int_equal(address_list_parse(many + 9, &list), 0);
	assert_int_equal(list.n, ADDRESS_LIST_MAX);
	assert_int_equal(address_list_parse(NULL, &list), 0);
	assert_int_equal(list.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad), cmocka_unit_test(test_origin),
					   cmocka_unit_test(test_addresses), cmocka_unit_test(test_lists)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
