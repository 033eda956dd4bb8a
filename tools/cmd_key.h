/* SPDX-License-Identifier: Apache-2.0 */
/* The sub-commands of `tdfs key` that are about the embedded KAS's keys. */
#ifndef TDFS_CMD_KEY_H
#define TDFS_CMD_KEY_H

#include "options.h"

extern const struct command key_rotate, key_rsa, key_forget; /* cmd_key_kas.c */

#endif
