// What a TypeScript or JavaScript user writes: every role, a deadline, and errors with their details.
import assert from "node:assert/strict";
import { createClient, ConnectError, Code } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CatalogService } from "./gen/pickaxe/v1/catalog_pb.js";
import { ScorerService } from "./gen/pickaxe/v1/scorer_pb.js";
import { RetrieverService } from "./gen/pickaxe/v1/retriever_pb.js";
import { RerankerService } from "./gen/pickaxe/v1/reranker_pb.js";
import { DecoderService, FinishReason } from "./gen/pickaxe/v1/decoder_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

const [address, fitted, index] = process.argv.slice(2);
const transport = createGrpcTransport({ baseUrl: `http://${address}` });
const client = (service) => createClient(service, transport);

async function failure(call) {
  try {
    await call();
  } catch (error) {
    return ConnectError.from(error);
  }
  assert.fail("the call should have failed");
}

const checks = {
  async "lists the methods"() {
    const { methods } = await client(CatalogService).listMethods({});
    const names = methods.map((method) => method.name);
    assert.ok(names.includes("zip-fit") && names.includes("chronicles"), names.join());
  },

  async "scores items"() {
    const items = [
      { id: "code", text: "def area(width, height):\n    return width * height\n" },
      { id: "prose", text: "The harbour was quiet, and the last boat had already left for the islands." },
    ];
    const { scores } = await client(ScorerService).score({ use: { method: "zip-fit", artifact: fitted }, items });
    const primary = scores.columns[0];
    assert.equal(primary.name, "alignment");
    const [code, prose] = primary.data.value.values;
    assert.ok(code > prose, `${code} > ${prose}`);
  },

  async "searches an index"() {
    const queries = [{ id: "q", text: "boat harbour" }];
    const { results } = await client(RetrieverService).search({ use: { method: "chronicles", artifact: index }, queries, k: 2 });
    assert.equal(results[0].hits[0].id, "sea");
  },

  async "reranks candidates"() {
    const { ranked } = await client(RerankerService).rerank({
      use: { method: "fullrank", params: { ranker: "encoder" } },
      query: { id: "q", text: "Which animal barks?" },
      candidates: [
        { id: "tax", text: "Tax returns are due in April." },
        { id: "dog", text: "A dog is a domestic animal that barks." },
      ],
    });
    assert.equal(ranked[0].id, "dog");
  },

  async "streams a decode"() {
    const prompts = [{ messages: [{ role: "user", content: "Name one colour." }], sampling: { maxTokens: 8, temperature: 0 } }];
    let text = "";
    let finish = FinishReason.UNSPECIFIED;
    let messages = 0;
    for await (const chunk of client(DecoderService).decode({ use: { method: "repeated-sampling" }, prompts })) {
      messages += 1;
      if (chunk.choice >= 0) text += chunk.text;
      finish = chunk.finishReason || finish;
    }
    assert.ok(text.length > 0 && messages > 1, `${messages} messages: ${text}`);
    assert.notEqual(finish, FinishReason.UNSPECIFIED);
  },

  async "exceeds a deadline"() {
    const prompts = [{ text: "Once upon a time", sampling: { maxTokens: 1000, temperature: 1 } }];
    const error = await failure(async () => {
      const stream = client(DecoderService).decode({ use: { method: "repeated-sampling" }, prompts }, { timeoutMs: 300 });
      for await (const _ of stream);
    });
    assert.equal(error.code, Code.DeadlineExceeded);
  },

  async "reads error details"() {
    const unknown = await failure(() => client(ScorerService).score({ use: { method: "zip-fitt" } }));
    assert.equal(unknown.code, Code.NotFound);
    const [info] = unknown.findDetails(ErrorInfoSchema);
    assert.equal(info.reason, "METHOD_UNKNOWN");
    assert.equal(info.domain, "pickaxe.v1");
    assert.match(info.metadata.near, /zip-fit/);

    const invalid = await failure(() =>
      client(ScorerService).score({ use: { method: "zip-fit", params: { level: 99, colour: "red" } } }),
    );
    assert.equal(invalid.code, Code.InvalidArgument);
    const [bad] = invalid.findDetails(BadRequestSchema);
    assert.deepEqual(bad.fieldViolations.map((violation) => violation.field).sort(), ["colour", "level"]);
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}\n${error.stack}`);
  }
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
