/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stand-alone driver of a fuzz target: runs it on every file of the corpus directories given.  This is what `meson test --suite fuzz` does
 * with tests/fuzz/corpus/TARGET. To search for new inputs, tests/fuzz/run SECONDS [TARGET...] builds the targets with clang's libFuzzer
 * instead of this file.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *buf;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st)) {
		perror(name);
		return 1;
	}
	if (!S_ISREG(st.st_mode)) {
		close(fd);
		return 0;
	}
	/* exactly as long as the input, so that a read beyond it is seen */
	buf = malloc(st.st_size ? (size_t)st.st_size : 1);
	n = buf ? read(fd, buf, (size_t)st.st_size) : -1;
	close(fd);
	if (n != st.st_size) {
		fprintf(stderr, "%s: cannot be read\n", name);
		free(buf);
		return 1;
	}
	printf("%s\n", name);
	fflush(stdout); /* the last line names the input that crashed */
	LLVMFuzzerTestOneInput(buf, (size_t)n);
	free(buf);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned count = 0;
	int bad = 0;

	for (int i = 1; i < argc; i++) {
		DIR *d = opendir(argv[i]);
		struct dirent *e;

		if (!d) {
			perror(argv[i]);
			return 1;
		}
		while ((e = readdir(d))) {
			if (e->d_name[0] == '.')
				continue;
			bad |= run_file(dirfd(d), e->d_name);
			count++;
		}
		closedir(d);
	}
	if (!count) {
		fprintf(stderr, "no input: %s DIRECTORY...\n", argv[0]);
		return 1;
	}
	printf("%u inputs\n", count);
	return bad;
}
