"""Print the fragments of this folder as a section of the changelog."""

from pathlib import Path

KINDS = ("added", "changed", "fixed", "removed")


def section(folder: Path) -> str:
    """Return the fragments of a folder as Markdown, by kind."""
    text = ""
    for kind in KINDS:
        sentences = [path.read_text().strip() for path in sorted(folder.glob(f"*.{kind}.md"))]
        if sentences:
            text += f"### {kind.title()}\n\n" + "".join(f"- {one}\n" for one in sentences) + "\n"
    return text


if __name__ == "__main__":
    print(section(Path(__file__).parent), end="")
