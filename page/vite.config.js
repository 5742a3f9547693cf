import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "vite";

const OUTSIDE = ["node_modules"];

// What the build is made of, so that a test can tell without node whether it is of these sources (tests/serve/test_page.py).
function sources(folder, below = "") {
  return readdirSync(join(folder, below), { withFileTypes: true }).flatMap((each) => {
    const path = below ? `${below}/${each.name}` : each.name;
    if (OUTSIDE.includes(path)) return [];
    return each.isDirectory() ? sources(folder, path) : [path];
  });
}

function digest(folder) {
  const hash = createHash("sha256");
  for (const path of sources(folder).sort()) hash.update(`${path}\0`).update(readFileSync(join(folder, path))).update("\0");
  return hash.digest("hex");
}

export default defineConfig({
  base: "./",
  plugins: [
    {
      name: "digest-of-sources",
      generateBundle() {
        this.emitFile({ type: "asset", fileName: "sources.sha256", source: `${digest(import.meta.dirname)}\n` });
      },
    },
  ],
  build: {
    outDir: "../src/snugnet/serve/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { output: { entryFileNames: "page.js", assetFileNames: "page[extname]" } },
  },
});
