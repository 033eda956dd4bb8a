// SPDX-License-Identifier: Apache-2.0
// @opentdf/client as a test partner:  partner.mjs enc|dec KAS-URL CLIENT-ID SECRET-FILE ATTRIBUTE|- SEGMENT IN OUT
//
// It is made for pages in a browser.  So whatever it sends to the KAS goes by the rules that a browser has for a page of another origin (CORS,
// Fetch Standard 3.3): a question before, and no answer that the server does not let that origin read.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const PAGE = 'https://app.example.org';
const [verb, url, client, secretFile, attribute, segment, from, to] = process.argv.slice(2);
const secret = readFileSync(secretFile, 'utf8').trim();
const require = createRequire(import.meta.url);

globalThis.window = globalThis; // a page's, which it hangs its class on
globalThis.isSecureContext = true;
for (const how of ['log', 'warn', 'info']) console[how] = () => {};
const axios = require('axios');
const { TDF3Client, AuthProviders, EncryptParamsBuilder } = require('@opentdf/client');

const plain = fetch;

function readable(answer, what) {
	const origin = answer.headers.get('access-control-allow-origin');

	if (origin !== '*' && origin !== PAGE) throw new TypeError(`CORS: a page of ${PAGE} may not read ${what}: ${answer.status}, allowed: ${origin}`);
}

// as a browser's fetch() in a page of PAGE
async function fromPage(url, { method, headers, body }) {
	const simple = ['accept', 'accept-language', 'content-language'];
	const asked = Object.keys(headers).map((h) => h.toLowerCase()).filter((h) => !simple.includes(h)).sort();

	if (method !== 'GET' || asked.length) {
		const may = await plain(url, { method: 'OPTIONS', headers: { Origin: PAGE, 'Access-Control-Request-Method': method, 'Access-Control-Request-Headers': asked.join(',') } });
		const list = (name) => (may.headers.get(name) || '').toLowerCase().split(',').map((x) => x.trim());

		readable(may, 'the answer to its question');
		if (!may.ok) throw new TypeError(`CORS: the question was answered with ${may.status}`);
		if (!['GET', 'POST'].includes(method) && !list('access-control-allow-methods').includes(method.toLowerCase())) throw new TypeError(`CORS: ${method} is not allowed`);
		for (const h of asked) if (!list('access-control-allow-headers').includes(h)) throw new TypeError(`CORS: the header ${h} is not allowed`);
	}
	const answer = await plain(url, { method, headers: { ...headers, Origin: PAGE }, body, redirect: 'error' });

	readable(answer, 'the answer');
	return answer;
}

axios.defaults.adapter = async (config) => {
	const headers = Object.fromEntries(Object.entries(config.headers.toJSON ? config.headers.toJSON() : config.headers).filter(([k, v]) => v !== undefined && k.toLowerCase() !== 'user-agent' && k.toLowerCase() !== 'accept-encoding'));
	const answer = await fromPage(config.url, { method: config.method.toUpperCase(), headers, body: config.data });
	const text = await answer.text();
	const response = { data: text, status: answer.status, statusText: answer.statusText, headers: Object.fromEntries(answer.headers), config, request: {} };

	if (!answer.ok) throw new axios.AxiosError(`status ${answer.status}: ${text}`, 'ERR_BAD_RESPONSE', config, {}, response);
	return response;
};

// who issues tokens is in the configuration that the server gives to everybody, pages too
const wellKnown = await fromPage(`${url}/.well-known/opentdf-configuration`, { method: 'GET', headers: {} });
const issuer = (await wellKnown.json()).platform_issuer;
const authProvider = await AuthProviders.clientSecretAuthProvider({ clientId: client, clientSecret: secret, oidcOrigin: issuer, exchange: 'client' });
const data = readFileSync(from);

// a page's own code decides which KASes it trusts: the one it was told, with or without the path that some writers add
function allowed() {
	const at = data.lastIndexOf('"url":"http');
	const named = JSON.parse('"' + data.subarray(at + 7, data.indexOf('"', at + 7)).toString() + '"');

	return [url, `${url}/kas`, `${url}/`].includes(named) ? [named] : [url];
}

function open(kas) {
	return new TDF3Client({ clientId: client, authProvider, kasEndpoint: kas, allowedKases: [kas] });
}

let out;
if (verb === 'enc') {
	const scope = { dissem: [], attributes: attribute === '-' ? [] : [{ attribute }] };
	const source = new ReadableStream({ start(c) { if (data.length) c.enqueue(new Uint8Array(data)); c.close(); } });

	out = await open(url).encrypt({ scope, source, offline: true, ...(Number(segment) ? { windowSize: Number(segment) } : {}) });
} else {
	out = await open(allowed()[0]).decrypt({ source: { type: 'buffer', location: new Uint8Array(data) } });
}
writeFileSync(to, Buffer.from(await out.toBuffer()));
process.exit(0);
