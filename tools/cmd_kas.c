/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd_kas.h"

static const struct command *const subs[] = {&kas_add,   &kas_list, &kas_registry, &kas_pin,    &kas_wrap_rule, &kas_remove,
					     &kas_trust, &kas_test, &kas_whoami,   &kas_logout, &kas_serve,     NULL};

const struct command command_kas = {
    .name = "kas",
    .summary = "key access services: whom a volume trusts; serve its own",
    .sub = subs,
};
