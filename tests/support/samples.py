"""Small files in the formats of the publishers."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping

GERMAN = ["Guten Tag.", "Die Straße ist naß & leer.", "„Wie geht’s?“"]
ENGLISH = ["Good day.", "The street is wet & empty.", "“How are you?”"]


def tar(members: Mapping[str, bytes], compression: str = "gz") -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def text(sentences: list[str]) -> bytes:
    """One sentence a line."""
    return "".join(f"{sentence}\n" for sentence in sentences).encode()


def sgm(sentences: list[str], kind: str) -> bytes:
    """A test set of WMT: two documents, numbered anew in each."""
    escaped = [sentence.replace("&", "&amp;") for sentence in sentences]
    return (
        f'<{kind}set setid="newstest" srclang="any">\n<doc sysid="ref" docid="a" genre="news">\n<hl>\n'
        f'<seg id="1">{escaped[0]}</seg>\n</hl>\n<p>\n<seg id="2"> {escaped[1]} </seg>\n</p>\n</doc>\n'
        f'<DOC docid="b">\n<seg id=1>{escaped[2]}</seg>\n</DOC>\n</{kind}set>\n'
    ).encode()


TMX = """<?xml version="1.0" encoding="UTF-8" ?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en" adminlang="en"/><body>
<tu><tuv xml:lang="en"><prop>x</prop><seg>Good day.</seg></tuv><tuv xml:lang="de"><seg>Guten Tag.</seg></tuv></tu>
<tu><tuv lang="DE-de"><seg>Die <bpt i="1">{b}</bpt>Straße<ept i="1">{/b}</ept> ist <hi>naß</hi> &amp; leer.</seg></tuv>
    <tuv lang="EN-us"><seg>The street is wet &#38;
empty.</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Only here.</seg></tuv><tuv xml:lang="fr"><seg>Ici.</seg></tuv></tu>
<tu><tuv xml:lang="de"><seg>„Wie geht’s?“</seg></tuv><tuv xml:lang="en"><seg>“How are you?”</seg></tuv></tu>
</body></tmx>
""".encode()

LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE tmx [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<tmx><body><tu><tuv xml:lang="en"><seg>&b;</seg></tuv></tu></body></tmx>
"""

OUTSIDE = b"""<?xml version="1.0"?>
<!DOCTYPE tmx [<!ENTITY passwords SYSTEM "file:///etc/passwd">]>
<tmx><body><tu><tuv xml:lang="en"><seg>&passwords;</seg></tuv></tu></body></tmx>
"""


def wiki(*pages: tuple[str, str, str]) -> bytes:
    """A dump with (name space, redirect or nothing, markup) of each page."""
    shown = "".join(
        f"<page><title>T</title><ns>{space}</ns><id>1</id>{redirect}<revision><id>2</id><comment>c. C.</comment>"
        f'<text bytes="1" xml:space="preserve">{markup}</text></revision></page>\n'
        for space, redirect, markup in pages
    )
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">'
    return f"{head}<siteinfo><sitename>W</sitename></siteinfo>{shown}</mediawiki>".encode()


ARTICLE = """{{Infobox|Name=Berlin.|Land=[[Deutschland]].}}
'''Berlin''' ist die [[Hauptstadt]] im [[Deutschland|Land]].&lt;ref&gt;Q.&lt;/ref&gt; Sie hat z. B. 3,7 Mio. Einwohner.
[[Datei:Berlin.jpg|mini|Ein [[Bild]] der Stadt.]]
== Geschichte ==
* Eine Liste.
# Noch [[eine]] Liste.
{| class="wikitable"
|-
| Eine Zelle. || Noch eine.
|}
Am 3. Oktober 1990 wurde ''Berlin'' &lt;!-- wieder --&gt;Hauptstadt. Ist das &amp;quot;wahr&amp;quot;?
:Eingerückt.
Ohne Punkt am Ende
Rest von {{nicht geschlossen.
[[Kategorie:Stadt.]]
"""
ARTICLE_SENTENCES = [
    "Berlin ist die Hauptstadt im Land.",
    "Sie hat z. B. 3,7 Mio. Einwohner.",
    "Am 3. Oktober 1990 wurde Berlin Hauptstadt.",
    'Ist das "wahr"?',
]
