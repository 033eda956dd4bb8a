/* SPDX-License-Identifier: Apache-2.0 */
#include "faults.h"

void walk(unsigned seed, unsigned steps)
{
}
