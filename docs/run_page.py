"""Runs the Python blocks of a page, and puts what they print and draw behind each of them.

The build of the documentation and the tests call the same function, `run_page`. The blocks of a
page are one program: what a block defines, later ones have. A figure that is open after a block is
shown behind it and closed.
"""

import base64
import contextlib
import html
import io
import os
import re
import sys
import tempfile

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_page(text, name):
    """Return the Markdown of a page with the results of its blocks.

    Parameters
    ----------
    text : str
    name : str
        The file's name, which errors in a block are reported with.
    """
    namespace = {"__name__": "__main__"}

    def with_results(match):
        line = text.count("\n", 0, match.start(1))
        code = compile("\n" * line + match[1], name, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, namespace)
        printed = f"\n\n```{{code-block}} text\n:class: output\n{out.getvalue()}```"
        return match[0] + (printed if out.getvalue() else "") + pictures()

    result = BLOCK.sub(with_results, text)
    if "joblib" in "".join(BLOCK.findall(text)) and "joblib" in sys.modules:
        # The page's workers end with it. (Of a page without any, this would start some.)
        sys.modules["joblib.externals.loky"].get_reusable_executor(reuse=True).shutdown(wait=True)
    return result


def pictures():
    """Return the open figures as images within the text, and close them."""
    plt = sys.modules.get("matplotlib.pyplot")
    found = ""
    for number in plt.get_fignums() if plt else ():
        figure, file = plt.figure(number), io.BytesIO()
        figure.savefig(file, format="svg", bbox_inches="tight")
        title = html.escape(figure.get_suptitle() or figure.axes[0].get_title(), quote=True)
        data = base64.b64encode(file.getvalue()).decode()
        image = f'<img alt="{title}" src="data:image/svg+xml;base64,{data}">'
        found += f"\n\n```{{raw}} html\n{image}\n```"
        plt.close(figure)
    return found


def before_parsing(app, page, source):
    """Run a page in an empty folder, as the tests do."""
    if str(app.env.doc2path(page)).endswith(".md"):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            try:
                source[0] = run_page(source[0], f"{page}.md")
            except ModuleNotFoundError as error:
                if error.name not in OTHERS:
                    raise
                note = f"{error.name} was not installed when this page was made: it has no results."
                source[0] += f"\n\n:::{{note}}\n{note}\n:::\n"


OTHERS = ("torch", "onnx", "sklearn", "dask")  # packages that only a page needs


def setup(app):
    os.environ["MPLBACKEND"] = "agg"
    app.connect("source-read", before_parsing)
    return {"parallel_read_safe": False}
