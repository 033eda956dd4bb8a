/* SPDX-License-Identifier: Apache-2.0 */
/* The commands below `tdfs kas`. */
#ifndef TDFS_CMD_KAS_H
#define TDFS_CMD_KAS_H

#include "commands.h"

extern const struct command kas_add, kas_list, kas_pin, kas_remove, kas_wrap_rule; /* cmd_kas_volume.c */
extern const struct command kas_test, kas_whoami, kas_logout;                      /* cmd_kas_client.c */
extern const struct command kas_trust;                                             /* cmd_kas_trust.c */
extern const struct command kas_registry;                                          /* cmd_kas_registry.c */
extern const struct command kas_serve;                                             /* cmd_kas_serve.c */

#endif
