/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with the libraries that tdfs loads later, and with all that it calls of them: names them to the build and to the Debian package.
 */
#include "../lazy_i.h"

#define CURL_ADDRESS(name) (void *)curl_##name,
#define JOSE_ADDRESS(name) (void *)jose_##name,
#define MHD_ADDRESS(name) (void *)MHD_##name,

void *volatile calls[] = {CURL_CALLS(CURL_ADDRESS) JOSE_CALLS(JOSE_ADDRESS) MHD_CALLS(MHD_ADDRESS)};

int main(int argc, char **argv)
{
	return !calls[argc];
}
