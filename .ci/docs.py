"""Build the site in build/docs from the docstrings: pdoc's pages, with equations as MathML, which a browser draws by itself."""

import inspect
import os
import re
import sys
import warnings
from functools import cached_property
from pathlib import Path

import pdoc
from latex2mathml.converter import convert
from pdoc import doc, doc_ast, docstrings, render, search

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    "dvae",
    *(f"dvae.{name}" for name in ("cli", "config", "errors", "metrics", "noise", "objectives", "recipes", "report", "testing")),
]
HIDDEN = ["!dvae.networks.dense"]  # the file; the function of that name is on its package's page

# Equations

DISPLAYED = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*)?)*)$", flags=re.MULTILINE)
INLINE = re.compile(r":math:`(.+?)`", flags=re.DOTALL)

equations: list[str] = []
to_markdown, to_html = docstrings.rst, render.env.filters["to_html"]
format_signature, make_variable = render.env.filters["format_signature"], doc.Variable.__init__


def stand_in(latex: str, display: str) -> str:
    """A word that Markdown leaves alone, in the equation's place."""
    # What the converter lacks: \arg, and the space around a function's name.
    drawn = convert(" ".join(latex.replace(r"\arg", r"\operatorname{arg}").split()), display=display)
    drawn = re.sub(r"<m[io]>(log|arg|max|min)</m[io]>", r'<mo lspace="0.17em" rspace="0.17em">\1</mo>', drawn)
    if unknown := re.search(r">(\\\w+)<", drawn):
        raise ValueError(f"{unknown[1]} cannot be drawn, in {latex}")
    equations.append(drawn)
    return f"equation{len(equations) - 1}drawn"


def without_equations(text: str, source_file: Path | None) -> str:
    text = DISPLAYED.sub(lambda found: f"{found[1]}\n{found[1]}{stand_in(found[2], 'block')}\n", text)
    text = text.replace("[*", "[asteriskdrawn")  # a shape's open dimensions begin no emphasis
    return to_markdown(INLINE.sub(lambda found: stand_in(found[1], "inline"), text), source_file)


def with_equations(text: str) -> str:
    html = to_html(text)
    drawn = type(html)(re.sub(r"equation(\d+)drawn", lambda found: equations[int(found[1])], html.replace("asteriskdrawn", "*")))
    drawn.toc_html = html.toc_html
    return drawn


# Members: what a class inherits is told where it comes from, not again at every class


def own_docstring(function: doc.Function) -> str:
    text = inspect.cleandoc(getattr(function.obj, "__doc__", None) or "")
    if function.name == "__init__":
        return "@public" if not text or text.startswith("Create new instance of") else text
    return text


def described(variable: doc.Variable, *args, **kwargs) -> None:
    make_variable(variable, *args, **kwargs)
    if variable.docstring.startswith("Alias for field number"):
        variable.docstring = ""


def signature(*args, **kwargs) -> str:
    """A named tuple's, without what Python puts around its types."""
    html = format_signature(*args, **kwargs)
    wrapped = (
        r"""<span class="n">ForwardRef</span><span class="p">\(</span><span class="s1">'(.*?)'</span><span class="p">\)</span>"""
    )
    return type(html)(re.sub(wrapped, r'<span class="n">\1</span>', html))


def own_variables(owner: doc.Class) -> dict[str, str]:
    return doc_ast.walk_tree(owner.obj).var_docstrings


def own_functions(owner: doc.Class) -> dict[str, str]:
    return doc_ast.walk_tree(owner.obj).func_docstrings


def patched(cls: type, name: str, function) -> None:
    descriptor = cached_property(function)
    descriptor.__set_name__(cls, name)
    setattr(cls, name, descriptor)


def main(folder: str = "build/docs") -> None:
    folder = os.path.abspath(folder)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    warnings.filterwarnings("ignore", "Error parsing type annotation")  # of named tuples, which are shown as they are written
    docstrings.rst = without_equations
    render.env.filters["to_html"] = search.to_html = with_equations
    patched(doc.Function, "docstring", own_docstring)
    doc.Variable.__init__ = described
    render.env.filters["format_signature"] = signature
    patched(doc.Class, "_var_docstrings", own_variables)
    patched(doc.Class, "_func_docstrings", own_functions)
    patched(doc.Class, "inherited_members", lambda owner: {})
    render.configure(docformat="google", include_undocumented=False, template_directory=ROOT / ".ci" / "pdoc")
    pdoc.pdoc(*PAGES, *HIDDEN, output_directory=Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
