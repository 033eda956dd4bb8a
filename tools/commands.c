/* SPDX-License-Identifier: Apache-2.0 */
/* What help, manual pages and completions are made from. */
#include "commands.h"

const struct command *const commands[] = {
    &command_init,
    &command_mount,
    &command_umount,
    &command_sync,
    &command_quiesce,
    &command_status,
    &command_info,
    &command_cat,
    &command_decrypt,
    &command_encrypt,
    &command_convert,
    &command_verify,
    &command_check,
    &command_recover,
    &command_key,
    &command_kas,
    &command_login,
    &command_policy,
    &command_share,
    &command_doctor,
    NULL,
};

const char help_exit[] = "  0  done                          6  needs its log (see tdfs recover --help)\n"
			 "  1  failed                        7  the key access service refused\n"
			 "  2  used wrongly                  8  the key access service is away\n"
			 "  3  some of the files failed     11  in use by another process\n"
			 "  4  wrong secret                 75  try again\n"
			 "  5  the volume is damaged       130  interrupted\n";
