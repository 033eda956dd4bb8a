/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Visible names and names in the store (design "plain"): a regular file `n` is stored as `n.tdf`, anything else as `n`; of those a name
 * that matches `\.tdf_*$` gets one more `_`.  So stored names that end in `.tdf` are regular files and no others are, and every pair
 * (visible name, kind) has exactly one stored name.
 *
 * Pure; thread-safe.
 */
#ifndef TDFS_NAME_H
#define TDFS_NAME_H

#include <sys/stat.h>

#include "defs.h"

#define NAME_VISIBLE_MAX 251 /* so that every kind of name fits with its suffix */
#define NAME_ROOM 256        /* any name of either sort with its NUL */

/** name_store() - the stored name of visible @name
 * @regular: of a regular file, else of any other kind
 * Return: 0; -ENAMETOOLONG; -EINVAL for "", "." and "..", or a slash in it */
int name_store(const char *name, bool regular, char ret[static NAME_ROOM]) MUST_CHECK;

/** name_show() - the visible name of a store entry
 * Return: 0; -ENOENT: this entry is not shown (a regular file without `.tdf`, something else with it, a name too long or one that would
 * read as "." or "..") */
int name_show(const char *stored, bool regular, char ret[static NAME_ROOM]) MUST_CHECK;

/** name_reserved() - `.tdfs`, which is hidden in the root */
bool name_reserved(const char *name) MUST_CHECK;

#endif
