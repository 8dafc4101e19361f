// What the Node client does with one table: node client.mjs FOLDER TABLE COLUMN, where @lancedb/lancedb is installed.
// The last line printed is JSON: each step's outcome.
import * as lancedb from "@lancedb/lancedb";

const [folder, name, column] = process.argv.slice(2);
const found = {};
const db = await lancedb.connect(folder);
const table = await db.openTable(name);
found.open = "ok";

const same = (a, b) => {
  if (a !== b) throw new Error(`${a} is not ${b}`);
};
const n = await table.countRows();
const first = (await table.query().where("id = 0").limit(1).toArray())[0];
const query = Array.from(first.clip);
const some = (await table.query().where("id >= 900").select(["id"]).limit(2).toArray()).map((row) => row.id);
const rows = Array.from({ length: 20 }, (_, i) => ({
  id: 5000 + i,
  clip: query,
  dino: Array.from(first.dino),
  label: "from Node",
}));

const steps = {
  filter: async () => {
    const counted = await table.countRows(`${column} = 0`);
    const near = await table.vectorSearch(query).column("clip").where(`${column} = 0`).limit(2000).toArray();
    same(near.length, counted);
    if (!counted) throw new Error("no row matches");
  },
  search: async () => {
    const near = await table.vectorSearch(query).column("clip").limit(5).toArray();
    if (!near.some((row) => Number(row.id) === 0)) throw new Error("row 0 is not near itself");
  },
  append: async () => {
    await table.add(rows);
    same(await table.countRows(), n + 20);
  },
  update: async () => {
    await table.update({ where: `id = ${some[0]}`, values: { price: 12.5 } });
    same(await table.countRows(`id = ${some[0]} AND price = 12.5`), 1);
  },
  delete: async () => {
    await table.delete(`id = ${some[1]}`);
    same(await table.countRows(`id = ${some[1]}`), 0);
  },
  optimise: async () => {
    await table.optimize();
  },
};
steps["search after"] = steps.search;
for (const [step, action] of Object.entries(steps)) {
  try {
    await action();
    found[step] = "ok";
  } catch (error) {
    found[step] = String(error).replace(/\s+/g, " ").slice(0, 200);
  }
}
console.log(JSON.stringify(found));
process.exit(0);
