"""The front end of `web/` as text: its types, how its modules become one script, and what they may not contain."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from front_end import WEB, bundle
from layers import LAYERS

MODULES = sorted(path.name for path in WEB.glob("*.js") if path.name != "plotly_3d.js")  # a script, not a module
NODE = shutil.which("node")

# Import a module as a browser does, run the bundle of it, and compare the source of everything that it exports.
COMPARE = """
import * as theirs from %(module)s;
%(bundle)s
const ours = { %(names)s };
for (const name of Object.keys(theirs)) {
  const [a, b] = [theirs[name], ours[name]].map((value) =>
    typeof value === "function" ? String(value) : JSON.stringify(value));
  if (a !== b) throw new Error(name);
}
console.log(JSON.stringify(Object.keys(ours)));
"""


# --- bundling ------------------------------------------------------------------------------------------------


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return folder


def run_node(folder: Path, script: str) -> str:
    """What the script prints when it runs as a module, which is in strict mode."""
    if not NODE:
        pytest.skip("needs Node.js")
    (folder / "script.mjs").write_text(script, encoding="utf-8")
    result = subprocess.run([NODE, folder / "script.mjs"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", ["explorer.js", "sheets.js", "geography.js"])
def test_the_bundle_is_what_the_modules_say(tmp_path, name):
    names = re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", (WEB / name).read_text(), re.MULTILINE)
    folder = tmp_path / "web"
    shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns("node_modules"))
    script = COMPARE % {
        "module": json.dumps(f"./web/{name}"), "bundle": bundle(name), "names": ", ".join(names),
    }  # fmt: skip
    assert json.loads(run_node(tmp_path, script)) == names and names


def test_names_of_one_module_do_not_clash_with_those_of_another(tmp_path):
    write(
        tmp_path,
        a="const SIDE = 1;\nexport function a() {\n  return SIDE;\n}\n",
        b='import { a } from "./a.js";\nconst SIDE = 2;\nexport const b = a() + SIDE;\n',
        main='import { a } from "./a.js";\nimport { b } from "./b.js";\nconst SIDE = 0;\nconsole.log(a() + b);\n',
    )
    assert run_node(tmp_path, bundle("main.js", tmp_path)).strip() == "4"


def test_the_app_gets_a_module_with_a_default_export():
    text = bundle("live_view.js")
    assert len(re.findall(r"^export default ", text, re.MULTILINE)) == 1
    assert not re.search(r"^(import |export (?!default ))", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"main": 'import { b } from "./a.js";\n', "a": "const b = 1;\n"}, "web/a.js does not export b"),
        ({"main": 'import { a } from "./a.js";\n', "a": 'import { m } from "./main.js";\n'}, "import each other"),
        ({"main": 'import * as a from "./a.js";\n', "a": ""}, "web/main.js, line 1: expected import"),
        ({"main": "\nexport { a };\n"}, "web/main.js, line 2: expected export"),
    ],
)
def test_what_cannot_be_bundled_is_said(tmp_path, modules, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        bundle("main.js", write(tmp_path, **modules))


# --- what the modules contain ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_types_are_right():
    compiler = WEB / "node_modules" / "typescript" / "bin" / "tsc"
    if not NODE or not compiler.exists():
        pytest.skip("needs Node.js and TypeScript; `make check` installs both")
    result = subprocess.run([NODE, compiler, "-p", WEB], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", MODULES)
def test_no_private_fields_and_nothing_that_python_decides(name):
    """Fields of other libraries that start with an underscore change without notice; layers and colours are data."""
    text = (WEB / name).read_text(encoding="utf-8")
    assert not re.findall(r"\._\w+", text)
    assert not [layer for layer in LAYERS if re.search(rf"""["'`]{layer}["'`]""", text)]
    assert not re.findall(r"""["']#[0-9a-f]{6}["']""", text)
