/* SPDX-License-Identifier: Apache-2.0 */
/* What a service manager wants to know: sd_notify(3)'s protocol, and whether standard error is the journal. */
#ifndef TDFS_SERVICE_H
#define TDFS_SERVICE_H

#include "defs.h"

/** service_tell() - "READY=1" and the like to $NOTIFY_SOCKET, if there is one */
void service_tell(const char *state);
/** service_has_journal() - is standard error what $JOURNAL_STREAM says?  Then lines may begin with their <priority> */
bool service_has_journal(void);

#endif
