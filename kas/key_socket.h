/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volume key from a `tdfs kas serve --socket` of the same user: several mounts, one unlocked key.  PROTOCOL.md, "Serving".
 */
#ifndef TDFS_KEY_SOCKET_H
#define TDFS_KEY_SOCKET_H

#include "record.h"
#include "secret.h"

#define VOLUME_KEY_PATH "/tdfs.VolumeService/Key"

/** key_socket_get() - ask for the key of volume @id
 * Socket, its directory and who listens must be ours or root's; nothing is sent before.  Blocks: 10 s at most.
 * Return: 0; -EPERM somebody else could have made the socket; -EINVAL no path of a socket; -ETIMEDOUT nobody answers there; -EACCES it does
 * not talk to us; -ENOKEY it serves another volume, or no key; -ENOMEM.  fail() tells.  What comes is proven by volume.json's MAC.  Free
 * with secret_free() */
int key_socket_get(const char *path, const uint8_t id[static ID_LEN], struct secret **ret) MUST_CHECK;

#endif
