# SPDX-License-Identifier: Apache-2.0
"""otdf-python as a test partner:  partner.py enc|dec PLATFORM-URL CLIENT-ID SECRET-FILE ATTRIBUTE|- IN OUT"""
import io, sys

from otdf_python.sdk_builder import SDKBuilder

verb, url, client, secret, attribute, src, dst = sys.argv[1:]
with open(secret) as f:
    secret = f.read().strip()
sdk = SDKBuilder().set_platform_endpoint(url).client_secret(client, secret)
if url.startswith("http://"):
    sdk = sdk.use_insecure_plaintext_connection(True)
sdk = sdk.build()
with open(src, "rb") as f:
    data = f.read()
if verb == "enc":
    out = io.BytesIO()
    sdk.create_tdf(data, sdk.new_tdf_config(attributes=[] if attribute == "-" else [attribute]), out)
    out = out.getvalue()
else:
    out = sdk.load_tdf(data).payload
with open(dst, "wb") as f:
    f.write(out)
