// Start of the page that is one file: read the data, mount the explorer, unpack Plotly.

async function startPage() {
  const root = document.getElementById("explorer");
  try {
    const data = JSON.parse(document.getElementById("data").textContent);
    await mount(root, data, { plotly: unpackPlotly }).ready;
  } catch (error) {
    root.textContent = `This page could not start: ${error.message}. A current version of any browser opens it.`;
    throw error;
  }
}

async function unpackPlotly() {
  await runPacked(document.getElementById("plotly").textContent);
  return window.Plotly;
}

// Run a script that stands in the page as base64 of gzip.
async function runPacked(base64) {
  const packed = new Blob([bytesOf(base64.trim())]).stream();
  const script = document.createElement("script");
  script.textContent = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script);
}

startPage();
