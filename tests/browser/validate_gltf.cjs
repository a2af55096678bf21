// The Khronos validator's report on each GLB that is named, as JSON: node validate_gltf.cjs NODE_MODULES FILE...
const fs = require("fs");
const path = require("path");
const [modules, ...files] = process.argv.slice(2);
const validator = require(path.resolve(modules, "gltf-validator"));

(async () => {
  const reports = {};
  for (const file of files) {
    reports[file] = (await validator.validateBytes(new Uint8Array(fs.readFileSync(file)), { maxIssues: 1000 }));
  }
  console.log(JSON.stringify(reports));
})();
