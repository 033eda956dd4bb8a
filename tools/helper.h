/* SPDX-License-Identifier: Apache-2.0 */
/* What mount(8) and umount(8) call; exit codes are theirs. */
#ifndef TDFS_HELPER_H
#define TDFS_HELPER_H

/** helper_mount() - `mount.tdfs STORE DIR [-sfnv] [-t TYPE] [-o OPTIONS]` */
int helper_mount(int argc, char **argv);
/** helper_umount() - `umount.fuse.tdfs DIR [-flnrv] [-t TYPE]` */
int helper_umount(int argc, char **argv);

#endif
