// Has the decoders of the SDK apply deltas from standard input, and tells which do not become their target.

import { Centrifuge } from "centrifuge";
import { Centrifuge as ProtobufCentrifuge } from "centrifuge/build/protobuf";

let input = "";
for await (const chunk of process.stdin) input += chunk;
const told = JSON.parse(input);
const bytes = (text) => new TextEncoder().encode(text);
const text = (array) => new TextDecoder().decode(array);

JSON.parse = () => null; // the decoder wants JSON, and what a target is as that is of no interest here

/** Those of which a decoder makes something else. `carried` is how the encoding carries a delta. */
function failures(client, carried) {
  const { _codec: codec } = client;
  return told.filter(({ source, delta, target }) => {
    try {
      const publication = { delta: true, data: carried(delta) };
      return text(codec.applyDeltaIfNeeded(publication, bytes(source)).newPrevValue) !== target;
    } catch {
      return true;
    }
  });
}

const url = "ws://127.0.0.1:1";
console.log(JSON.stringify({
  json: failures(new Centrifuge(url), (delta) => delta),
  protobuf: failures(new ProtobufCentrifuge(url), bytes),
}));
