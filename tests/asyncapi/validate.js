// Prints what the official parser says of AsyncAPI documents, and where an example is not as its message
// is described, which the parser leaves alone: one line of JSON for each file.

import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';
import Ajv from 'ajv';
import addFormats from 'ajv-formats';

const parser = new Parser();
const ajv = new Ajv({ allErrors: true, strict: false });
addFormats(ajv);

for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(await readFile(file, 'utf8'));
  const said = diagnostics.map(({ code, message, path, severity }) => ({
    code,
    message,
    path: path.join('/'),
    severity: ['error', 'warning', 'information', 'hint'][severity],
  }));
  for (const message of document?.allMessages().all() ?? []) {
    for (const example of message.examples().all()) {
      check(said, `${message.id()} headers`, message.headers(), example.headers());
      check(said, `${message.id()} payload`, message.payload(), example.payload());
    }
  }
  const operations = document?.operations().all().map((operation) => operation.id()) ?? [];
  console.log(JSON.stringify({ operations, said }));
}

function check(said, path, schema, value) {
  if (value !== undefined && !ajv.validate(schema.json(), value)) {
    said.push({ code: 'example', message: ajv.errorsText(), path, severity: 'error' });
  }
}
