/* SPDX-License-Identifier: Apache-2.0 */
/* What a manifest signs: the root signature, the policy bindings. */
#include <errno.h>

#include "encode.h"
#include "manifest.h"
#include "report.h"

void manifest_keys_free(struct manifest *m)
{
	for (size_t i = 0; i < m->n_ka; i++) {
		struct key_access *ka = &m->ka[i];

		free(ka->type_name);
		free(ka->url);
		free(ka->protocol);
		free(ka->kid);
		free(ka->sid);
		free(ka->ephemeral_pem);
		free(ka->wrapped);
		free(ka->binding);
	}
	free(m->ka);
	m->ka = NULL;
	m->n_ka = 0;
}

void manifest_free(struct manifest *m)
{
	if (!m)
		return;
	manifest_keys_free(m);
	free(m->schema_version);
	free(m->mime_type);
	free(m->policy);
	free(m->key_access_text);
	free(m->hashes);
	free(m->plain_start);
	free(m);
}

int manifest_root(const struct manifest *m, const struct secret *dek)
{
	struct part hashes = {m->hashes, m->n_segs * m->hash_len};
	char *hex CLEANUP_FREE = NULL;
	uint8_t root[MAC_LEN];
	int err;

	if (m->hex) {
		hex = malloc(2 * hashes.len + 1);
		if (!hex)
			return -ENOMEM;
		hex_encode(hashes.p, hashes.len, hex);
		hashes = (struct part){hex, 2 * hashes.len};
	}
	err = hmac_sha256(dek->b, SECRET_LEN, &hashes, 1, root);
	if (err)
		return err;
	if (!equal_ct(root, m->root_sig, MAC_LEN))
		return fail(-EBADMSG, "the root signature is wrong: the list of segments was damaged or tampered with");
	return 0;
}

static int binding_mac(const char *policy, const struct secret *share, uint8_t ret[static MAC_LEN])
{
	return hmac_sha256(share->b, SECRET_LEN, &(struct part){policy, strlen(policy)}, 1, ret);
}

int manifest_binding(const struct manifest *m, const struct key_access *ka, const struct secret *share)
{
	uint8_t text[2 * MAC_LEN], got[MAC_LEN], want[MAC_LEN];
	size_t len;
	int err;

	err = base64_decode(ka->binding, strlen(ka->binding), true, text, sizeof(text), &len);
	if (!err && len == MAC_LEN)
		memcpy(got, text, MAC_LEN);
	else if (!err)
		err = hex_decode((const char *)text, len, got, MAC_LEN);
	if (err)
		return fail(-EBADMSG, "the policy binding is not a base64 HMAC: damaged or tampered with");
	err = binding_mac(m->policy, share, want);
	if (err)
		return err;
	if (!equal_ct(got, want, MAC_LEN))
		return fail(-EBADMSG, "the policy binding is wrong: policy or wrapped key was damaged or tampered with");
	return 0;
}

int policy_binding(const char *policy, const struct secret *share, char ret[static 89])
{
	char hex[2 * MAC_LEN + 1];
	uint8_t mac[MAC_LEN];
	int err = binding_mac(policy, share, mac);

	if (err)
		return err;
	hex_encode(mac, MAC_LEN, hex);
	base64_encode(hex, 2 * MAC_LEN, ret);
	return 0;
}
