"""The grammars of mesh files as tools use them: a small ball coloured by place, written in every way that we know of.
Each file is read with the colours where they belong, or refused in one line that names it."""

import base64
import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from recon.data.scan import load_mesh, mesh_colors

BALL = trimesh.creation.icosphere(2, 0.9)
VERTICES = np.asarray(BALL.vertices)
FACES = np.asarray(BALL.faces)
UV = (VERTICES[:, :2] + 1) / 2  # red along u, green along v
COLORS = np.concatenate([UV, np.full((len(UV), 1), 0.5)], 1)


def gradient(size: int = 128) -> Image.Image:
    "The texture of `UV`."
    u, v = np.meshgrid((np.arange(size) + 0.5) / size, 1 - (np.arange(size) + 0.5) / size)
    return Image.fromarray((np.stack([u, v, np.full_like(u, 0.5)], -1) * 255).round().astype(np.uint8))


def middle_colors(mesh) -> tuple[np.ndarray, np.ndarray]:
    "Colours (F,3) in the middle of the faces, and the middles (F,3)."
    faces = torch.from_numpy(mesh.faces)
    if isinstance(mesh.colors, torch.Tensor):
        found = mesh.colors[faces].mean(1)
    else:
        found = mesh.colors(torch.arange(len(faces)), torch.full((len(faces), 3), 1 / 3))
    return found.numpy(), mesh.vertices[mesh.faces].mean(1)


def assert_by_place(path, tolerance: float = 0.01, faces: int = len(FACES)):
    "A ball of the right size, each face coloured by its place."
    mesh = load_mesh(path)
    mesh_colors(mesh, path)
    found, places = middle_colors(mesh)
    expected = np.concatenate([(places[:, :2] + 1) / 2, np.full((len(places), 1), 0.5)], 1)
    assert len(mesh.faces) == faces and np.abs(mesh.vertices).max() == pytest.approx(0.9, abs=1e-3)
    assert np.abs(found - expected).max() < tolerance
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume > 0


def assert_refused(path, *words: str):
    "One line that names the file, and says these words."
    with pytest.raises(ValueError) as refused:
        mesh = load_mesh(path)
        mesh_colors(mesh, path)
    message = str(refused.value)
    assert message.startswith(str(path.parent)) and "\n" not in message, message
    for word in words:
        assert word in message, message


# OBJ


def numbers(rows, keyword: str, form: str = "%.6f") -> str:
    return "\n".join(f"{keyword} " + " ".join(form % x for x in row) for row in rows) + "\n"


V = numbers(VERTICES, "v")
VT = numbers(UV, "vt")
F = "\n".join("f " + " ".join(f"{i + 1}/{i + 1}" for i in face) for face in FACES) + "\n"


def write_obj(folder, text, mtl=None, image: str = "tex.png"):
    "An OBJ of these lines, its materials and its image."
    path = folder / "p.obj"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if mtl is not None:
        (folder / "p.mtl").write_bytes(mtl if isinstance(mtl, bytes) else mtl.encode())
    if image:
        place = folder / image
        place.parent.mkdir(exist_ok=True, parents=True)
        gradient().convert("RGB").save(place, "PNG")
    return path


TEXTURED = "mtllib p.mtl\n" + V + VT + "usemtl skin\n" + F
MAPS = {
    "plain": "map_Kd tex.png",
    "options of every kind": "map_Kd -blendu on -blendv off -cc off -clamp off -mm 0 1 -o 0 0 0 -s 1 1 1 -t 0 0 0 "
    "-texres 512 -bm 1 -imfchan r -type sphere -boost 2 tex.png",
    "one number": "map_Kd -s 1 -o 0 tex.png",
    "two numbers": "map_Kd -o 0 0 -s 1 1 tex.png",
    "exponents": "map_Kd -s 1e0 1.0E+00 1. -o .0 0 0 tex.png",
    "capital options": "map_Kd -S 1 1 1 -CLAMP on tex.png",
    "quoted": 'map_Kd "tex.png"',
    "quoted after options": 'map_Kd -s 1 1 1 "tex.png"',
    "single quotes": "map_Kd 'tex.png'",
    "tabs": "\tmap_Kd\t-s\t1\t1\t1\ttex.png\t",
    "capitals": "MAP_KD TEX.PNG",
    "a dot folder": "map_Kd ./tex.png",
    "windows path": r"map_Kd C:\Users\Jo Doe\scans\tex.png",
    "network path": r"map_Kd \\server\share\tex.png",
    "unix path": "map_Kd /home/someone/tex.png",
    "doubled backslashes": r"map_Kd C:\\scans\\tex.png",
    "folder of windows": r"map_Kd .\textures\tex.png",
    "comment behind": "map_Kd tex.png # diffuse",
    "continued": "map_Kd -s 1 1 1 \\\n tex.png",
    "ambient alone": "map_Ka tex.png",
    "other maps beside": "map_Bump -bm 0.3 no.png\nmap_Kd tex.png\nbump no.png\nmap_d no.png\nnorm no.png\nrefl -type "
    "sphere no.png\nmap_Ks no.png\nmap_Pr no.png",
    "ambient beside": "map_Ka no.png\nmap_Kd tex.png",
    "percent twenty": "map_Kd ./%74ex.png",
    "options behind the file": "map_Kd tex.png -s 1 1 1 -clamp off",
    "one number of two": "map_Kd -mm 0 tex.png",
    "a colour space": "map_Kd -colorspace sRGB tex.png",
    "emission alone": "Kd 0 0 0\nKe 1 1 1\nmap_Ke tex.png",
    "an empty line before": "map_Kd\nmap_Kd tex.png",
    "a colour that is not read beside": "map_Kd tex.png\nKd spectral skin.rfl 1",
    "colour beside": "Ka 0 0 0\nKd 0.8 0.8 0.8\nKs 0 0 0\nTr 0.0\nd 1.0\nTf 1 1 1\nNi 1.5\nillum 2\nmap_Kd tex.png",
}


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("line", MAPS.values(), ids=MAPS.keys())
def test_the_maps_of_a_material(tmp_path, line, ending):
    line = line.replace("\r\n", "\n")
    mtl = ("# made by hand\n\nnewmtl skin\n" + line + "\n").replace("\n", ending)
    assert_by_place(write_obj(tmp_path, TEXTURED, mtl))


NAMES = [
    "my tex.png",
    "Tex.PNG",
    "tex#1.png",
    "tex (1).png",
    "t\u00e9x.png",
    "\u76ae\u80a4.png",
    "1.png",
    "2 2 2.png",
    "tex.1001.png",
    "textures/tex.png",
    "-tex.png",
    "tex%20a.png",
    "tex.jpg.png",
    "tex;a.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_images(tmp_path, name):
    assert_by_place(write_obj(tmp_path, TEXTURED, f"newmtl skin\nmap_Kd {name}\n", name))


@pytest.mark.parametrize(
    "name,encoding",
    [
        ("\u043a\u043e\u0436\u0430", "cp1251"),
        ("k\u016f\u017ee", "cp1250"),
        ("\u76ae\u819a", "big5"),
        ("\ud53c\ubd80", "euc_kr"),
        ("\u8868", "shift_jis"),
        ("\u0434\u0435\u0440\u043c\u0430", "cp866"),
        ("\u0e1c\u0e34\u0e27", "cp874"),
        ("\u05e2\u05d5\u05e8", "cp1255"),
        ("\u062c\u0644\u062f", "cp1256"),
        ("\u0101da", "cp1257"),
        ("\u03b4\u03ad\u03c1\u03bc\u03b1", "cp737"),
        ("k\u016f\u017ee", "cp852"),
        ("\u2460\u9ad9", "cp932"),
        ("\ub620", "cp949"),
        ("\u4dae", "gb18030"),
        ("\u0161k\u00e1ra", "iso8859_2"),
        ("\u043a\u043e\u0436\u0430", "iso8859_5"),
    ],
)
def test_names_of_other_alphabets(tmp_path, name, encoding):
    "In a material file of the user's own code page, beside an OBJ of the same or in UTF-8."
    mtl = f"newmtl {name}\nmap_Kd {name}.png\n".encode(encoding)
    for text in (TEXTURED.replace("usemtl skin", f"usemtl {name}").encode(code) for code in (encoding, "utf-8")):
        assert_by_place(write_obj(tmp_path, text, mtl, f"{name}.png"))


@pytest.mark.parametrize("entry", ["t\u00c3\u00a9x.png", "t\u251c\u2310x.png", "t\u201ax.png", "t\udce9x.png"])
def test_names_of_an_archive_unpacked_elsewhere(tmp_path, entry):
    "UTF-8 taken for another code page, bytes that are no letters; and the other way round."
    path = write_obj(tmp_path, TEXTURED, "newmtl skin\nmap_Kd t\u00e9x.png\n", entry)
    assert_by_place(path)
    if entry.isprintable():
        (tmp_path / entry).rename(tmp_path / "t\u00e9x.png")
        assert_by_place(write_obj(tmp_path, TEXTURED, f"newmtl skin\nmap_Kd {entry}\n", None))


@pytest.mark.parametrize("place", ["textures", "Textures", "maps", "../textures", "../images"])
def test_images_in_a_folder_of_textures(tmp_path, place):
    "As model sites pack them: source/p.obj, textures/tex.png, and only the name in the material file."
    folder = tmp_path / "source"
    folder.mkdir()
    path = write_obj(folder, TEXTURED, "newmtl skin\nmap_Kd C:\\work\\tex.png\n", f"{place}/tex.png")
    assert_by_place(path)


def test_an_image_of_another_suffix_is_named(tmp_path):
    assert_refused(write_obj(tmp_path, TEXTURED, "newmtl skin\nmap_Kd tex.tga\n"), "tex.tga", "is it tex.png?")


def test_numbers_of_microsofts_library(tmp_path):
    "-1.#IND is no number, and no comment; what no face uses does no harm, and what one uses is named."
    assert_by_place(write_obj(tmp_path, TEXTURED + "vt -1.#IND 1.#INF\nvt nan(ind) 0\nvn -1.#IND 0 0\n", MTL))
    first = VT.splitlines()[0]
    assert_refused(write_obj(tmp_path, TEXTURED.replace(first, "vt -1.#IND 1.#INF"), MTL), "texture coordinates")
    first = V.splitlines()[0]
    assert_refused(write_obj(tmp_path, TEXTURED.replace(first, "v 1.#QNAN 0 0", 1), MTL), "1 of 162 vertices are NaN")


def test_a_vertex_without_a_colour_is_counted(tmp_path):
    lines = with_colors().splitlines()
    lines[7] = " ".join(lines[7].split()[:4])
    assert_refused(write_obj(tmp_path, "\n".join(lines) + "\n" + BARE), "missing, NaN or infinite at 1 of 162")


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".gltf"])
def test_what_is_no_mesh_at_all_is_named(tmp_path, suffix):
    "Pointers of Git LFS, web pages of failed downloads, archives."
    import gzip

    path = tmp_path / f"p{suffix}"
    for data, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<html>Not found</html>", "a web page, not the file"),
        (gzip.compress(V.encode()), "compressed with gzip"),
    ):
        path.write_bytes(data)
        assert_refused(path, f"p{suffix}: {words}")


def test_meshes_under_the_suffix_of_another(tmp_path):
    for suffix in (".obj", ".glb"):
        for form in FORMS:
            path = write_ply(tmp_path, form, [colored("uchar", 255), TRIANGLES])
            assert_by_place(path.rename(tmp_path / f"p{suffix}"))
    arrays = dict(P=POINTS, C=(COLORS.astype("f4"), {}), I=INDEX)
    glb = write_gltf(tmp_path, dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I"), arrays=arrays)
    for suffix in (".obj", ".ply", ".gltf"):
        assert_by_place(glb.rename(tmp_path / f"q{suffix}"))
        glb = tmp_path / f"q{suffix}"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_wide_letters_without_a_mark(tmp_path, encoding):
    assert_by_place(write_obj(tmp_path, TEXTURED.encode(encoding), MTL))
    assert_by_place(write_obj(tmp_path, TEXTURED, MTL.encode(encoding)))


USES = {
    "blanks between the words": ("usemtl my \t skin", "newmtl my skin"),
    "a comment behind its use": ("usemtl skin # of the body", "newmtl skin"),
    "a comment behind its definition": ("usemtl skin", "newmtl skin # 1"),
    "a hash in the name": ("usemtl skin#1", "newmtl skin#1"),
    "slashes": (r"usemtl a/b\c", r"newmtl a/b\c"),
    "never used, the only one": ("s off", "newmtl skin"),
    "one that cannot be read, unused": ("usemtl skin", "newmtl x\nKd spectral a.rfl\nmap_Kd -zoom 2 a\nnewmtl skin"),
    "an unused image that is not there": ("usemtl skin", "newmtl x\nmap_Kd gone.png\nnewmtl skin"),
}


@pytest.mark.parametrize("use,definition", USES.values(), ids=USES.keys())
def test_names_of_materials(tmp_path, use, definition):
    text = TEXTURED.replace("usemtl skin", use)
    assert_by_place(write_obj(tmp_path, text, f"{definition}\nmap_Kd tex.png\n"))


def test_materials_defined_late_or_in_a_file_of_the_same_name(tmp_path):
    body = V + VT + "usemtl skin\n" + F
    for text in (body + "mtllib p.mtl\n", "usemtl skin\nmtllib p.mtl\n" + V + VT + F, body, "mtllib 0007.mtl\n" + body):
        assert_by_place(write_obj(tmp_path, text, MTL))
    (tmp_path / "my b.mtl").write_text("newmtl cloth\nKd 0 0 1\n")
    (tmp_path / "p.mtl").rename(tmp_path / "my a.mtl")
    for line in ('mtllib "my b.mtl" "my a.mtl"', "mtllib my b.mtl my a.mtl"):
        assert_by_place(write_obj(tmp_path, TEXTURED.replace("mtllib p.mtl", line)))
    (tmp_path / "m").mkdir()
    (tmp_path / "my a.mtl").rename(tmp_path / "m" / "p.mtl")
    (tmp_path / "tex.png").rename(tmp_path / "m" / "tex.png")  # beside its material file
    assert_by_place(write_obj(tmp_path, TEXTURED.replace("p.mtl", "m/p.mtl"), image=""))


def test_colours_as_cie_xyz(tmp_path):
    mesh = load_mesh(write_obj(tmp_path, TEXTURED, "newmtl skin\nKd xyz 0.4124 0.2126 0.0193\n"))
    assert np.abs(middle_colors(mesh)[0] - [1, 0, 0]).max() < 0.01


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig", "cp1252", "mac_roman"])
def test_encodings_of_material_files(tmp_path, encoding):
    text = TEXTURED.replace("usemtl skin", "usemtl peau \u00e9")
    mtl = "newmtl peau \u00e9\nmap_Kd t\u00e9x.png\n".encode(encoding)
    assert_by_place(write_obj(tmp_path, text.encode("latin-1"), mtl, "t\u00e9x.png"))
    assert_by_place(write_obj(tmp_path, text.encode(encoding), mtl, "t\u00e9x.png"))


def test_material_libraries(tmp_path):
    "Two in one line, two lines, one whose name has a space, quotes, another case, and a path of another machine."
    mtl = "newmtl skin\nmap_Kd tex.png\n"
    (tmp_path / "other.mtl").write_text("newmtl cloth\nKd 0 0 1\n")
    (tmp_path / "my body.mtl").write_text(mtl)
    for line in (
        "mtllib other.mtl p.mtl",
        "mtllib other.mtl\nmtllib p.mtl",
        "mtllib my body.mtl",
        'mtllib "p.mtl"',
        "mtllib P.MTL",
        r"mtllib C:\scans\p.mtl",
        "mtllib ./p.mtl",
        "mtllib\tp.mtl",
        "MTLLIB p.mtl",
    ):
        assert_by_place(write_obj(tmp_path, TEXTURED.replace("mtllib p.mtl", line), mtl))


def with_colors(scale: float = 1.0, form: str = "%.6f", extra: str = "") -> str:
    return "\n".join("v " + " ".join(form % x for x in (*v, *(scale * c))) + extra for v, c in zip(VERTICES, COLORS))


BARE = "\n".join("f " + " ".join(str(i + 1) for i in face) for face in FACES) + "\n"
PAINT = "".join("ff" + "".join(f"{int(x):02x}" for x in (255 * c).round()) for c in COLORS)
GEOMETRY = {
    "colours": with_colors() + "\n" + BARE,
    "colours to 255": with_colors(255, "%.3f") + "\n" + BARE,
    "colours and alpha": with_colors(extra=" 1.0") + "\n" + BARE,
    "negative indices": with_colors()
    + "\n"
    + "\n".join("f " + " ".join(str(int(i) - len(VERTICES)) for i in face) for face in FACES),
    "normals": with_colors() + "\n" + numbers(VERTICES, "vn") + BARE.replace(" ", " ") + "s off\n",
    "corners of normals": with_colors()
    + "\n"
    + numbers(VERTICES, "vn")
    + "\n".join("f " + " ".join(f"{i + 1}//{i + 1}" for i in face) for face in FACES),
    "groups, points and lines": "o person\n" + with_colors() + "\ng head arm\ns 1\np 1 2\nl 1 2 3\n" + BARE,
    "comments behind": with_colors().replace("\n", " # a vertex\n", 5) + "\n" + BARE.replace("\n", " # a face\n"),
    "tabs": with_colors().replace(" ", "\t") + "\n" + BARE.replace(" ", "\t"),
    "spaces": with_colors().replace(" ", "   ") + "  \n" + BARE.replace(" ", "  ").replace("\n", "   \n"),
    "exponents": with_colors(form="%.6E") + "\n" + BARE,
    "capitals": with_colors().replace("v ", "V ") + "\n" + BARE.replace("f ", "F "),
    "old keyword": with_colors() + "\n" + BARE.replace("f ", "fo "),
    "no end of line": with_colors() + "\n" + BARE.strip(),
    "colours beside a plain material": "usemtl none\n" + with_colors() + "\n" + BARE,
    "painted in ZBrush": V + "".join(f"#MRGB {PAINT[k : k + 512]}\n" for k in range(0, len(PAINT), 512)) + BARE,
    "continued, blanks behind": with_colors() + "\n" + BARE.replace("f ", "f \\ \n "),
    "faces first": BARE + with_colors() + "\n",
    "trailing slashes": with_colors() + "\n" + "\n".join("f " + " ".join(f"{i + 1}//" for i in f) for f in FACES),
    "plus signs": with_colors() + "\n" + BARE.replace(" ", " +"),
    "an unused vertex that is NaN": with_colors() + "\nv nan nan nan 0 0 0\n" + BARE,
}


@pytest.mark.parametrize("text", GEOMETRY.values(), ids=GEOMETRY.keys())
def test_the_geometry_of_obj(tmp_path, text):
    assert_by_place(write_obj(tmp_path, text))


def test_textured_corners_of_every_kind(tmp_path):
    mtl = "newmtl skin\nmap_Kd tex.png\n"
    w = VT.replace("\n", " 0.0\n")
    negative = "\n".join("f " + " ".join("{0}/{0}".format(int(i) - len(VERTICES)) for i in face) for face in FACES)
    full = (
        V
        + VT
        + numbers(VERTICES, "vn")
        + "usemtl skin\n"
        + "\n".join("f " + " ".join(f"{i + 1}/{i + 1}/{i + 1}" for i in face) for face in FACES)
    )
    for body in (
        V + w + "usemtl skin\n" + F,
        V + VT + "usemtl skin\n" + negative,
        full,
        V + VT + "usemtl skin\ng a\n" + F + "usemtl skin\nl 1 2\n",
    ):
        assert_by_place(write_obj(tmp_path, "mtllib p.mtl\n" + body, mtl))


def test_polygons_become_triangles(tmp_path):
    "A cube of quads, coloured by place."
    corners = np.array([[x, y, z] for x in (-0.9, 0.9) for y in (-0.9, 0.9) for z in (-0.9, 0.9)])
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    colors = np.concatenate([(corners[:, :2] + 1) / 2, np.full((8, 1), 0.5)], 1)
    text = numbers(np.concatenate([corners, colors], 1), "v") + "\n".join(
        "f " + " ".join(str(i + 1) for i in quad) for quad in quads
    )
    assert_by_place(write_obj(tmp_path, text), faces=12)


MTL = "newmtl skin\nmap_Kd tex.png\n"
WRONG = {
    "an unknown material": (TEXTURED.replace("usemtl skin", "usemtl cloth"), MTL, ["cloth", "not defined"]),
    "no material file": (TEXTURED.replace("p.mtl", "no.mtl"), None, ["no.mtl", "not there"]),
    "no image": (TEXTURED, "newmtl skin\nmap_Kd no.png\n", ["no.png", "not there"]),
    "an unknown option": (TEXTURED, "newmtl skin\nmap_Kd -zoom 3 tex.png\n", ["line 2", "-zoom"]),
    "no newmtl": (TEXTURED, "map_Kd tex.png\n", ["line 1", "newmtl"]),
    "no name": (TEXTURED, "newmtl skin\nmap_Kd -s 1 1 1\n", ["line 2", "names no file"]),
    "spectral": (TEXTURED, "newmtl skin\nKd spectral a.rfl 1\n", ["line 2"]),
    "a word for a number": (V.replace("v 0", "v x", 1) + BARE, None, ["v x"]),
    "a comma": (V.replace(".", ",") + BARE, None, ["number"]),
    "a word for an index": (V + BARE.replace("f 1 ", "f one ", 1), None, ["one"]),
    "an index too large": (V + BARE + "f 1 2 999999\n", None, ["999999"]),
    "index zero": (V + BARE + "f 0 1 2\n", None, ["0"]),
    "a negative index too far": (V + BARE + "f -1 -2 -999999\n", None, ["vertex"]),
    "no faces": (V, None, ["no faces"]),
    "empty": ("", None, ["no faces"]),
    "a used vertex that is NaN": (V.replace(V.split("\n")[0], "v nan 0 0") + BARE, None, ["NaN"]),
    "no colours": (V + BARE, None, ["no texture and no vertex colours"]),
    "no coordinates": ("mtllib p.mtl\n" + V + "usemtl skin\n" + BARE, MTL, ["texture coordinates"]),
    "coordinates that are NaN": (TEXTURED.replace(VT.split("\n")[0], "vt nan nan"), MTL, ["texture coordinates"]),
    "coordinates that are infinite": (TEXTURED.replace(VT.split("\n")[0], "vt inf 0"), MTL, ["texture coordinates"]),
    "a picture that is not there, of a name with letters": (TEXTURED, "newmtl skin\nmap_Kd p\xe9.png\n", ["p\xe9.png"]),
    "too little paint": (V + "#MRGB ffff0000\n" + BARE, None, ["#MRGB of 1 vertices"]),
    "a decimal comma": (TEXTURED, "newmtl skin\nKd 0,5 0,5 0,5\n", ["line 2", "expected red"]),
    "nothing but an empty map": (TEXTURED, "newmtl skin\nKd 1 0 0\nmap_Kd\n", ["line 3", "names no file"]),
    "an index of digits": (V + BARE + f"f 1 2 {10**30}\n", None, ["index"]),
    "binary": (b"\0\1\2\3" * 100, None, ["no faces"]),
    "zip": (b"PK\3\4" * 100, None, ["no faces"]),
}


@pytest.mark.parametrize("text,mtl,words", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_obj_is_refused_by_name(tmp_path, text, mtl, words):
    assert_refused(write_obj(tmp_path, text, mtl), *words)


def test_an_image_that_is_damaged_is_named(tmp_path):
    path = write_obj(tmp_path, TEXTURED, MTL)
    for data in (b"", b"no image", (tmp_path / "tex.png").read_bytes()[:300]):
        (tmp_path / "tex.png").write_bytes(data)
        assert_refused(path, "tex.png")


IMAGES = {
    "jpeg": lambda image, path: image.save(path, "JPEG", quality=98, subsampling=0),
    "webp": lambda image, path: image.save(path, "WEBP", lossless=True),
    "bmp": lambda image, path: image.save(path, "BMP"),
    "tiff": lambda image, path: image.save(path, "TIFF"),
    "tga": lambda image, path: image.save(path, "TGA"),
    "palette": lambda image, path: image.quantize(256).save(path, "PNG"),
    "alpha": lambda image, path: image.convert("RGBA").save(path, "PNG"),
    "cmyk": lambda image, path: image.convert("CMYK").save(path, "TIFF"),
    "interlaced": lambda image, path: image.save(path, "PNG", interlace=1),
    "sixteen": lambda image, path: path.write_bytes(sixteen_bits(image)),
    "eight in sixteen": lambda image, path: path.write_bytes(sixteen_bits(image, 1)),
    "ten in sixteen, with alpha": lambda image, path: path.write_bytes(sixteen_bits(image.convert("RGBA"), 1023 / 255)),
    "twelve in sixteen, with alpha": lambda image, path: path.write_bytes(
        sixteen_bits(image.convert("RGBA"), 4095 / 255)
    ),
}


def sixteen_bits(image, factor: float = 257) -> bytes:
    import cv2

    pixels = np.asarray(image)[..., [2, 1, 0, 3][: len(image.mode)]]
    return cv2.imencode(".png", (pixels * float(factor)).round().astype(np.uint16))[1].tobytes()


@pytest.mark.parametrize("save", IMAGES.values(), ids=IMAGES.keys())
def test_textures_of_every_depth(tmp_path, save):
    path = write_obj(tmp_path, TEXTURED, MTL)
    save(gradient(), tmp_path / "tex.png")
    assert_by_place(path, 0.06)


def test_texture_coordinates_repeat_and_clamp(tmp_path):
    "Whole tiles away they mean the same; scaled and moved by the map's options too; with -clamp the rim goes on."
    for shift in (1, -3, 100):
        text = TEXTURED.replace(VT, numbers(UV + [shift, -shift], "vt"))
        assert_by_place(write_obj(tmp_path, text, MTL), 0.02)
    text = TEXTURED.replace(VT, numbers(UV / [2, 4] - [0.25, 0.5], "vt"))
    assert_by_place(write_obj(tmp_path, text, "newmtl skin\nmap_Kd -o 0.5 2 0 -s 2 4 1 tex.png\n"), 0.02)
    text = TEXTURED.replace(VT, numbers(UV + [10, 0], "vt"))
    mesh = load_mesh(write_obj(tmp_path, text, "newmtl skin\nmap_Kd -clamp on tex.png\n"))
    assert middle_colors(mesh)[0][:, 0].min() > 0.98


def test_tiles_of_udim(tmp_path):
    "The left half in tile 1001, the right one in 1002; or the second missing."
    right = UV[FACES].mean(1)[:, 0] > 0.5
    uv = np.concatenate([UV, UV + [1, 0]])
    faces = [" ".join(f"{i + 1}/{i + 1 + len(UV) * r}" for i in face) for face, r in zip(FACES, right)]
    text = "mtllib p.mtl\n" + V + numbers(uv, "vt") + "usemtl skin\n" + "".join(f"f {face}\n" for face in faces)
    for name in ("tex.<UDIM>.png", "tex.1001.png", "tex_<udim>.png"):
        path = write_obj(tmp_path, text, f"newmtl skin\nmap_Kd {name}\n", "")
        for tile in ("1001", "1002"):
            file = name.replace("<UDIM>", tile).replace("<udim>", tile).replace("1001", tile)
            gradient().save(tmp_path / file)
        assert_by_place(path, 0.02)
    (tmp_path / "tex_1002.png").unlink()
    assert_refused(path, "1002", "not there")


def test_several_materials(tmp_path):
    "An image, a colour, and one without either; of two images one is missing."
    third = len(FACES) // 3
    lines = F.splitlines(keepends=True)
    text = (
        "mtllib p.mtl\n"
        + V
        + VT
        + "usemtl skin\n"
        + "".join(lines[:third])
        + "usemtl red\n"
        + "".join(lines[third : 2 * third])
        + "usemtl skin\n"
        + "".join(lines[2 * third :])
    )
    mesh = load_mesh(write_obj(tmp_path, text, "newmtl skin\nmap_Kd tex.png\nnewmtl red\nKd 0.8 0.1 0.1\n"))
    found, places = middle_colors(mesh)
    assert np.allclose(found[third : 2 * third], [0.8, 0.1, 0.1], atol=1e-3)
    assert np.abs(found[:third, 0] - (places[:third, 0] + 1) / 2).max() < 0.02
    assert_refused(write_obj(tmp_path, text, "newmtl skin\nmap_Kd tex.png\nnewmtl red\nmap_Kd gone.png\n"), "gone.png")


# PLY

SIZES = dict(
    char="b",
    uchar="B",
    short="h",
    ushort="H",
    int="i",
    uint="I",
    float="f",
    double="d",
    int8="b",
    uint8="B",
    int16="h",
    uint16="H",
    int32="i",
    uint32="I",
    float32="f",
    float64="d",
)


def pack(form: str, kind: str, values) -> bytes:
    "Numbers of a PLY, as text or bytes."
    if form == "ascii":
        return (" ".join(f"{x:.7g}" if kind in ("float", "double") else str(int(x)) for x in values) + " ").encode()
    order = "<" if form == "binary_little_endian" else ">"
    return b"".join(struct.pack(order + SIZES[kind], x if SIZES[kind] in "fd" else int(x)) for x in values)


def write_ply(folder, form: str = "ascii", elements=(), head: str = "", ending: str = "\n"):
    "A PLY of elements: name, properties (kind, name) or (kind of count, kind, name), and a row of values each."
    text = f"ply\nformat {form} 1.0\n{head}"
    data = b""
    for name, properties, rows in elements:
        text += f"element {name} {len(rows)}\n"
        for *kinds, prop in properties:
            text += f"property {'list ' if len(kinds) > 1 else ''}{' '.join(kinds)} {prop}\n"
        for row in rows:
            for (*kinds, _), value in zip(properties, row):
                if len(kinds) > 1:
                    data += pack(form, kinds[0], [len(value)])
                data += pack(form, kinds[-1], value if len(kinds) > 1 else [value])
            data += ending.encode() if form == "ascii" else b""
    path = folder / "p.ply"
    path.write_bytes((text + "end_header\n").replace("\n", ending).encode() + data)
    return path


XYZ = [("float", axis) for axis in "xyz"]
TRIANGLES = ("face", [("uchar", "int", "vertex_indices")], [(face,) for face in FACES])


def colored(kind: str, top: float, names=("red", "green", "blue"), alpha: bool = False):
    "The vertices, with colours of a number type up to `top`."
    properties = XYZ + [(kind, name) for name in names] + ([(kind, "alpha")] if alpha else [])
    values = COLORS * top if kind in ("float", "double") else (COLORS * top).round()
    tail = [(top,)] * len(VERTICES) if alpha else [()] * len(VERTICES)
    return ("vertex", properties, [(*v, *c, *t) for v, c, t in zip(VERTICES, values, tail)])


FORMS = ("ascii", "binary_little_endian", "binary_big_endian")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "kind,top",
    [
        ("uchar", 255),
        ("uint8", 255),
        ("ushort", 65535),
        ("ushort", 255),
        ("short", 255),
        ("int", 255),
        ("uint", 255),
        ("float", 1),
        ("double", 1),
        ("float", 255),
        ("double", 255),
    ],
)
def test_colours_of_a_ply(tmp_path, form, kind, top):
    for names in (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")):
        assert_by_place(write_ply(tmp_path, form, [colored(kind, top, names), TRIANGLES]))
    assert_by_place(write_ply(tmp_path, form, [colored(kind, top, alpha=True), TRIANGLES], "comment made by hand\n"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "count,kind,name",
    [
        ("uchar", "uint", "vertex_indices"),
        ("int", "short", "vertex_index"),
        ("uint", "ushort", "vertex_indices"),
        ("uint8", "int32", "vertex_index"),
    ],
)
def test_faces_of_a_ply(tmp_path, form, count, kind, name):
    faces = ("face", [(count, kind, name)], [(face,) for face in FACES])
    assert_by_place(write_ply(tmp_path, form, [colored("uchar", 255), faces]))
    flagged = (
        "face",
        [("uchar", "flags"), (count, kind, name), ("float", "quality")],
        [(0, face, 0.5) for face in FACES],
    )
    edges = ("edge", [("int", "vertex1"), ("int", "vertex2")], [(0, 1), (1, 2)])
    assert_by_place(write_ply(tmp_path, form, [colored("uchar", 255), edges, flagged, edges], "obj_info scanned\n"))


@pytest.mark.parametrize("form", FORMS)
def test_strips_of_a_ply(tmp_path, form):
    "Strips of one triangle each, ended by -1, as Stanford's files have them, and one longer strip."
    a, b, c = FACES[0]
    beside = next(k for k, face in enumerate(FACES) if k and {b, c} <= set(face))
    longer = [a, b, c, *(set(FACES[beside]) - {b, c}), -1]
    strips = longer + [corner for k, face in enumerate(FACES) if k not in (0, beside) for corner in (*face, -1)]
    element = ("tristrips", [("int", "int", "vertex_indices")], [(strips,)])
    assert_by_place(write_ply(tmp_path, form, [colored("uchar", 255), element]))


@pytest.mark.parametrize("form", FORMS)
def test_textures_of_a_ply(tmp_path, form):
    "By vertices, by corners, in a file of a name with blanks, of several images."
    gradient().save(tmp_path / "my tex.png")
    Image.new("RGB", (4, 4), "black").save(tmp_path / "other.png")
    comment = "comment TextureFile my tex.png\n"
    for names in ("st", "uv", ("texture_u", "texture_v")):
        points = ("vertex", XYZ + [("float", name) for name in names], [(*v, *uv) for v, uv in zip(VERTICES, UV)])
        assert_by_place(write_ply(tmp_path, form, [points, TRIANGLES], comment), 0.02)
    points = ("vertex", XYZ, VERTICES)
    wedges = [("uchar", "int", "vertex_indices"), ("uchar", "float", "texcoord")]
    rows = [(face, UV[face].flatten()) for face in FACES]
    assert_by_place(write_ply(tmp_path, form, [points, ("face", wedges, rows)], comment), 0.02)
    several = ("face", [*wedges, ("int", "texnumber")], [(*row, 1) for row in rows])
    both = [points, several]
    assert_by_place(write_ply(tmp_path, form, both, "comment TextureFile other.png\n" + comment), 0.02)
    assert_refused(write_ply(tmp_path, form, both, comment + "comment TextureFile gone.png\n"), "gone.png", "not there")
    bare = ("face", wedges, [rows[0], *((face, ()) for face in FACES[1:])])
    assert_refused(write_ply(tmp_path, form, [points, bare], comment), "319 faces", "texture coordinates")


@pytest.mark.parametrize("form", FORMS)
def test_other_words_of_a_ply(tmp_path, form):
    "Names of properties in capitals and of other tools; images named in other words; faces without an image."
    gradient().save(tmp_path / "tex.png")
    points = ("vertex", XYZ + [("float", "tu"), ("float", "tv")], [(*v, *uv) for v, uv in zip(VERTICES, UV)])
    for line in ("obj_info TextureFile tex.png", "comment TextureFile: tex.png", "comment texture : TEX.png"):
        assert_by_place(write_ply(tmp_path, form, [points, TRIANGLES], line + "\n"), 0.02)
    capitals = [(kind, name.upper()) for kind, name in colored("uchar", 255)[1]]
    vertices = ("vertex", capitals, colored("uchar", 255)[2])
    faces = ("face", [("uchar", "int", "vertex_indexes")], TRIANGLES[2])
    assert_by_place(write_ply(tmp_path, form, [vertices, faces]))
    lists = [("uchar", "int", "vertex_indices"), ("uchar", "float", "texcoord"), ("int", "texnumber")]
    rows = [(face, UV[face].flatten() * (k % 2), k % 2 - 1) for k, face in enumerate(FACES)]
    comment = "comment TextureFile tex.png\n"
    assert_by_place(write_ply(tmp_path, form, [colored("uchar", 255), ("face", lists, rows)], comment), 0.02)
    bare = write_ply(tmp_path, form, [("vertex", XYZ, VERTICES), ("face", lists, rows)], comment)
    assert_refused(bare, "160 faces have image -1")


@pytest.mark.parametrize("form", FORMS)
def test_a_ply_that_names_no_image_or_one_it_cannot_place(tmp_path, form):
    "Blender writes coordinates alone; MeshLab keeps the name of an image when the coordinates are gone."
    gradient().save(tmp_path / "p.png")
    points = ("vertex", XYZ + [("float", "s"), ("float", "t")], [(*v, *uv) for v, uv in zip(VERTICES, UV)])
    path = write_ply(tmp_path, form, [points, TRIANGLES])
    assert_refused(path, "no texture and no vertex colours")
    mesh = load_mesh(path, tmp_path / "p.png")
    found, places = middle_colors(mesh)
    assert np.abs(found[:, :2] - (places[:, :2] + 1) / 2).max() < 0.02
    assert_by_place(write_ply(tmp_path, form, [colored("uchar", 255), TRIANGLES], "comment TextureFile gone.png\n"))


def test_text_of_a_ply_that_is_broken_elsewhere(tmp_path):
    "A mark, numbers wrapped at a width or on one line, numbers that their declared type cannot hold."
    path = write_ply(tmp_path, "ascii", [colored("uchar", 255), TRIANGLES])
    head, _, body = path.read_bytes().partition(b"end_header\n")
    for text in (body.replace(b" ", b"\n"), body.replace(b"\n", b" "), body.replace(b"\n", b"\n\n")):
        path.write_bytes(b"\xef\xbb\xbf" + head + b"end_header\n" + text)
        assert_by_place(path)
    fractions = write_ply(tmp_path, "ascii", [colored("float", 1), TRIANGLES])
    data = fractions.read_bytes().replace(b"float red", b"uchar red")
    fractions.write_bytes(data.replace(b"float green", b"uint8 green"))
    assert_by_place(fractions)
    assert_by_place(write_ply(tmp_path, "ascii", [colored("int", 65535), TRIANGLES]))


@pytest.mark.parametrize("form", FORMS)
def test_materials_of_a_ply(tmp_path, form):
    "A colour a face, or a material a face."
    middles = COLORS[FACES].mean(1)
    faces = [("uchar", "int", "vertex_indices"), *(("uchar", name) for name in ("red", "green", "blue"))]
    rows = [(face, *(color * 255).round()) for face, color in zip(FACES, middles)]
    assert_by_place(write_ply(tmp_path, form, [("vertex", XYZ, VERTICES), ("face", faces, rows)]))
    names = [f"{kind}_{name}" for kind in ("ambient", "diffuse") for name in ("red", "green", "blue")]
    materials = ("material", [("uchar", name) for name in names], [(0, 0, 0, *row[1:]) for row in rows])
    faces = (
        "face",
        [("uchar", "int", "vertex_indices"), ("int", "material_index")],
        [(f, k) for k, f in enumerate(FACES)],
    )
    assert_by_place(write_ply(tmp_path, form, [("vertex", XYZ, VERTICES), materials, faces]))


def test_a_ply_of_windows(tmp_path):
    assert_by_place(write_ply(tmp_path, "ascii", [colored("uchar", 255), TRIANGLES], ending="\r\n"))
    assert_by_place(write_ply(tmp_path, "binary_little_endian", [colored("uchar", 255), TRIANGLES], ending="\r\n"))


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_ply_is_refused_by_name(tmp_path, form):
    path = write_ply(tmp_path, form, [colored("uchar", 255), TRIANGLES])
    data = path.read_bytes()
    for wrong, words in (
        (data[:-40], ["cut off"]),
        (data[:200], ["header"]),
        (b"", ["not a PLY"]),
        (data.replace(b"element face 320", b"element face 99999999999"), ["promises"]),
        (data.replace(b"element face 320", b"element face x"), ["element face x"]),
        (data.replace(b"element face 320", b"element face -1"), ["promises"]),
        (data.replace(b"property uchar red", b"property colour red"), ["colour red"]),
        (data.replace(b"property float y", b"property float yy"), ["x, y, z"]),
        (data.replace(f"format {form}".encode(), b"format zip"), ["zip"]),
        (data.replace(b"format", b"fmt"), ["format"]),
    ):
        path.write_bytes(wrong)
        assert_refused(path, *words)
    faces = ("face", TRIANGLES[1], [(face,) for face in FACES] + [((0, 1, 999),)])
    assert_refused(write_ply(tmp_path, form, [colored("uchar", 255), faces]), "999")
    vertices = colored("float", 1)
    vertices[2][3] = (*VERTICES[3], np.nan, 0, 0)
    assert_refused(write_ply(tmp_path, form, [vertices, TRIANGLES]), "colours")


# glTF


def write_gltf(folder, primitive: dict, *, arrays: dict, node=None, binary: bool = True, **tables):
    """A GLB, or glTF with data URIs, of one primitive; `arrays`: name -> (array, further fields of its accessor).
    Names in the primitive and the tables stand for accessors."""
    accessors, views, data = [], [], b""
    rows = {}
    types = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
    codes = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
    for name, (array, more) in arrays.items():
        array = np.atleast_2d(array.T).T
        data += bytes(-len(data) % 4)
        rows[name] = len(accessors)
        accessors.append(
            dict(
                bufferView=len(views),
                componentType=codes[array.dtype.str[1:]],
                count=len(array),
                type=types[array.shape[1]],
                **more,
            )
        )
        views.append(dict(buffer=0, byteOffset=len(data), byteLength=array.nbytes))
        data += array.tobytes()
    image = gradient()
    png = folder / "tex.png"
    image.save(png)
    views.append(dict(buffer=0, byteOffset=len(data), byteLength=png.stat().st_size))
    data += png.read_bytes()

    def filled(value):
        if isinstance(value, dict):
            return {name: filled(part) for name, part in value.items()}
        if isinstance(value, list):
            return [filled(part) for part in value]
        return rows.get(value, value) if isinstance(value, str) else value

    buffer = dict(byteLength=len(data))
    if not binary:
        buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    scene = dict(
        asset=dict(version="2.0"),
        buffers=[buffer],
        bufferViews=views,
        accessors=accessors,
        meshes=[dict(primitives=[filled(primitive)])],
        nodes=[dict(mesh=0)],
        scenes=[dict(nodes=[0])],
        scene=0,
        images=[dict(bufferView=len(views) - 1, mimeType="image/png")],
        textures=[dict(source=0)],
    )
    scene |= filled(tables)
    text = json.dumps(scene).encode()
    path = folder / ("p.glb" if binary else "p.gltf")
    text += b" " * (-len(text) % 4)
    data += bytes(-len(data) % 4)
    glb = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(data)) + struct.pack("<I4s", len(text), b"JSON") + text
    path.write_bytes(glb + struct.pack("<I4s", len(data), b"BIN\0") + data if binary else text)
    return path


POINTS = (VERTICES.astype("f4"), {})
INDEX = (FACES.astype("u2").flatten(), {})
DOWN = (UV * [1, -1] + [0, 1]).astype("f4")
SKIN = dict(pbrMetallicRoughness=dict(baseColorTexture=dict(index=0)))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "kind,more", [("u1", dict(normalized=True)), ("u2", dict(normalized=True)), ("f4", {}), ("u1", {}), ("u2", {})]
)
@pytest.mark.parametrize("width", [3, 4])
def test_colours_of_a_glb(tmp_path, kind, more, width, binary):
    top = 1 if kind == "f4" else np.iinfo(kind).max
    values = np.concatenate([COLORS, np.ones((len(COLORS), 1))], 1)[:, :width] * top
    if kind == "u1" and width == 3:
        values = np.concatenate([values, np.full((len(values), 1), 255)], 1)  # rows of four bytes
    arrays = dict(P=POINTS, I=INDEX, C=(values.round() if top > 1 else values, more))
    arrays["C"] = (arrays["C"][0].astype(kind), more)
    primitive = dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I")
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, binary=binary))
    unlit = dict(materials=[dict(extensions=dict(KHR_materials_unlit={}))], extensionsUsed=["KHR_materials_unlit"])
    assert_by_place(write_gltf(tmp_path, primitive | dict(material=0), arrays=arrays, binary=binary, **unlit))
    half = dict(materials=[dict(pbrMetallicRoughness=dict(baseColorFactor=[0.5, 0.5, 0.5, 1]))])
    mesh = load_mesh(write_gltf(tmp_path, primitive | dict(material=0), arrays=arrays, binary=binary, **half))
    assert np.abs(2 * middle_colors(mesh)[0] - COLORS[FACES].mean(1)).max() < 0.02


@pytest.mark.parametrize("kind", ["u1", "u2", "u4"])
def test_indices_of_a_glb(tmp_path, kind):
    arrays = dict(P=POINTS, C=(COLORS.astype("f4"), {}), I=(FACES.astype(kind).flatten(), {}))
    primitive = dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I")
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays))


def test_faces_of_a_glb(tmp_path):
    "Without indices; as one strip and one fan a face; strips of too few corners are nothing."
    corners = FACES.flatten()
    arrays = dict(P=(VERTICES[corners].astype("f4"), {}), C=(COLORS[corners].astype("f4"), {}))
    loose = dict(attributes=dict(POSITION="P", COLOR_0="C"))
    assert_by_place(write_gltf(tmp_path, loose, arrays=arrays))
    arrays = dict(P=POINTS, C=(COLORS.astype("f4"), {}), E=(np.array([0, 1], "u2"), {}))
    arrays |= {f"I{k}": (face.astype("u2"), {}) for k, face in enumerate(FACES)}
    attributes = dict(POSITION="P", COLOR_0="C")
    for mode in (5, 6):
        primitives = [dict(attributes=attributes, indices=f"I{k}", mode=mode) for k in range(len(FACES))]
        primitives += [
            dict(attributes=attributes, indices="E", mode=mode),
            dict(attributes=attributes, mode=0),
            dict(attributes=attributes, indices="E", mode=1),
        ]
        assert_by_place(write_gltf(tmp_path, {}, arrays=arrays, meshes=[dict(primitives=primitives)]))


def test_textures_of_a_glb(tmp_path):
    "Embedded, as data URI, beside; by the second coordinates; of small numbers; scaled, turned and moved."
    arrays = dict(P=POINTS, I=INDEX, T=(DOWN, {}), O=(DOWN * 0, {}))
    primitive = dict(attributes=dict(POSITION="P", TEXCOORD_0="T"), indices="I", material=0)
    for binary in (True, False):
        assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[SKIN], binary=binary), 0.02)
    uri = "data:image/png;base64," + base64.b64encode((tmp_path / "tex.png").read_bytes()).decode()
    for image in (dict(uri=uri), dict(uri="tex.png"), dict(uri="./t%65x.png"), dict(uri="TEX.png")):
        assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[SKIN], images=[image]), 0.02)
    second = dict(attributes=dict(POSITION="P", TEXCOORD_0="O", TEXCOORD_1="T"), indices="I", material=0)
    entry = dict(index=0, texCoord=1)
    material = dict(pbrMetallicRoughness=dict(baseColorTexture=entry))
    assert_by_place(write_gltf(tmp_path, second, arrays=arrays, materials=[material]), 0.02)
    for kind in ("u1", "u2"):
        small = arrays | dict(T=((DOWN * np.iinfo(kind).max).round().astype(kind), dict(normalized=True)))
        if kind == "u2":
            assert_by_place(write_gltf(tmp_path, primitive, arrays=small, materials=[SKIN]), 0.02)
    specular = dict(KHR_materials_pbrSpecularGlossiness=dict(diffuseTexture=dict(index=0)))
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[dict(extensions=specular)]), 0.02)


GLOW = dict(emissiveTexture=dict(index=0), emissiveFactor=[1, 1, 1])
BLACK = dict(pbrMetallicRoughness=dict(baseColorFactor=[0, 0, 0, 1]))


def test_materials_that_only_emit(tmp_path):
    "Photogrammetry that is not to be lit: black, or without any other image; an image beside the colours is none."
    primitive = dict(attributes=dict(POSITION="P", TEXCOORD_0="T"), indices="I", material=0)
    arrays = dict(P=POINTS, I=INDEX, T=(DOWN, {}))
    for material in (BLACK | GLOW, GLOW, BLACK | GLOW | dict(extensions=dict(KHR_materials_emissive_strength={}))):
        assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[material]), 0.02)
    mesh = load_mesh(write_gltf(tmp_path, primitive, arrays=arrays, materials=[BLACK | dict(emissiveFactor=[1, 0, 0])]))
    assert np.allclose(middle_colors(mesh)[0], [1, 0, 0])
    unlit = write_gltf(tmp_path, primitive, arrays=arrays, materials=[dict(emissiveTexture=dict(index=0))])
    assert_refused(unlit, "no texture")  # its factor is black
    arrays |= dict(C=(COLORS.astype("f4"), {}))
    primitive["attributes"] |= dict(COLOR_0="C")
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[BLACK | GLOW]), 0.02)
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[GLOW]), 0.02)


HARMLESS = """KHR_materials_specular KHR_materials_variants KHR_lights_punctual KHR_xmp_json_ld VRM VRMC_vrm""".split()


@pytest.mark.parametrize("name", HARMLESS)
def test_extensions_that_change_neither_shape_nor_colour(tmp_path, name):
    primitive = dict(attributes=dict(POSITION="P", TEXCOORD_0="T"), indices="I", material=0)
    used = dict(extensionsUsed=[name], extensionsRequired=[name])
    arrays = dict(P=POINTS, I=INDEX, T=(DOWN, {}))
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[SKIN], **used), 0.02)


def test_what_exporters_get_wrong_in_a_glb(tmp_path):
    "Nulls, no material as -1, wrapping 0, colours to 255, a node of no size, uris of every kind."
    arrays = dict(P=POINTS, I=INDEX, T=(DOWN, {}), C=((255 * COLORS).astype("f4"), {}))
    painted = dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I")
    nodes = [dict(mesh=0, rotation=None), dict(mesh=0, scale=[0, 0, 0])]
    scenes = [dict(nodes=[0, 1])]
    for primitive in (painted | dict(material=None), painted | dict(material=-1)):
        assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, nodes=nodes, scenes=scenes, scene=None))
    primitive = dict(attributes=dict(POSITION="P", TEXCOORD_0="T"), indices="I", material=0)
    wrapped = dict(samplers=[dict(wrapS=0, wrapT=0)], textures=[dict(source=0, sampler=0)])
    empty = SKIN | dict(extensions=dict(KHR_materials_pbrSpecularGlossiness=dict(specularFactor=[0, 0, 0])))
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[empty], **wrapped), 0.02)
    png = (tmp_path / "tex.png").read_bytes()
    b64 = base64.b64encode(png).decode()
    for uri in (
        "tex.png?v=1",
        r".\tex.png",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in png),
        "data:image/png;base64," + b64.rstrip("="),
        "data:image/png;base64," + b64.replace("+", "-").replace("/", "_"),
    ):
        assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[SKIN], images=[dict(uri=uri)]), 0.02)


def test_a_compressed_view_is_refused_by_its_extension(tmp_path):
    arrays = dict(P=POINTS, I=INDEX, C=(COLORS.astype("f4"), {}))
    primitive = dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I")
    path = write_gltf(tmp_path, primitive, arrays=arrays, binary=False)
    scene = json.loads(path.read_text())
    packed = dict(EXT_meshopt_compression=dict(buffer=0, byteLength=10, byteStride=12, count=10, mode="ATTRIBUTES"))
    scene["bufferViews"][0] |= dict(buffer=1, extensions=packed)
    scene["buffers"].append(dict(byteLength=1000))
    path.write_text(json.dumps(scene))
    assert_refused(path, "EXT_meshopt_compression", "without compression")


@pytest.mark.parametrize("turn", [0, 0.3, -2])
def test_transformed_textures_of_a_glb(tmp_path, turn):
    "KHR_texture_transform, undone in the coordinates; and quantized coordinates, which it brings back."
    c, s = np.cos(turn), np.sin(turn)
    matrix = np.array([[c, s], [-s, c]]) @ np.diag([2, 0.5])  # of columns (u, v), counter-clockwise with v down
    before = (DOWN - [0.1, 0.2]) @ np.linalg.inv(matrix).T
    transform = dict(offset=[0.1, 0.2], rotation=turn, scale=[2, 0.5], texCoord=1)
    entry = dict(index=0, extensions=dict(KHR_texture_transform=transform))
    material = dict(pbrMetallicRoughness=dict(baseColorTexture=entry))
    used = dict(extensionsUsed=["KHR_texture_transform"], extensionsRequired=["KHR_texture_transform"])
    arrays = dict(P=POINTS, I=INDEX, T=(before.astype("f4"), {}), O=(DOWN * 0, {}))
    primitive = dict(attributes=dict(POSITION="P", TEXCOORD_0="O", TEXCOORD_1="T"), indices="I", material=0)
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[material], **used), 0.02)


def test_quantized_numbers_of_a_glb(tmp_path):
    "KHR_mesh_quantization: positions of 16 bits scaled by the node, whole-number coordinates by a transform."
    used = dict(extensionsUsed=["KHR_mesh_quantization"], extensionsRequired=["KHR_mesh_quantization"])
    points = np.concatenate([(VERTICES * 10000).round(), np.zeros((len(VERTICES), 1))], 1).astype("i2")[:, :3]
    wide = np.zeros((len(points), 4), "i2")
    wide[:, :3] = points
    transform = dict(scale=[1 / 4095, 1 / 4095])
    entry = dict(index=0, extensions=dict(KHR_texture_transform=transform))
    material = dict(pbrMetallicRoughness=dict(baseColorTexture=entry))
    arrays = dict(P=(points.copy(), {}), I=INDEX, T=((DOWN * 4095).round().astype("u2"), {}))
    primitive = dict(attributes=dict(POSITION="P", TEXCOORD_0="T"), indices="I", material=0)
    nodes = [dict(mesh=0, scale=[1e-4] * 3)]
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, materials=[material], nodes=nodes, **used), 0.02)
    normalized = arrays | dict(P=((VERTICES * 32767).round().astype("i2"), dict(normalized=True)))
    assert_by_place(write_gltf(tmp_path, primitive, arrays=normalized, materials=[material], **used), 0.02)


def test_sparse_numbers_of_a_glb(tmp_path):
    "Half of the positions replaced; the other half in the buffer."
    wrong = VERTICES.astype("f4").copy()
    wrong[::2] = 5
    which = np.arange(0, len(wrong), 2)
    arrays = dict(
        W=(which.astype("u2"), {}),
        R=(VERTICES[::2].astype("f4"), {}),
        P=(wrong, {}),
        C=(COLORS.astype("f4"), {}),
        I=INDEX,
    )
    primitive = dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I")
    path = write_gltf(tmp_path, primitive, arrays=arrays, binary=False)
    scene = json.loads(path.read_text())
    scene["accessors"][2]["sparse"] = dict(
        count=len(which), indices=dict(bufferView=0, componentType=5123), values=dict(bufferView=1)
    )
    path.write_text(json.dumps(scene))
    assert_by_place(path)


def test_nodes_of_a_glb(tmp_path):
    "Turned, scaled, mirrored and nested; several scenes of which one is shown; without scenes; without nodes."
    arrays = dict(P=POINTS, C=(COLORS.astype("f4"), {}), I=INDEX)
    primitive = dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I")
    nodes = [
        dict(mesh=0, translation=[9, 9, 9]),
        dict(children=[2], scale=[0.5, 0.5, 0.5]),
        dict(mesh=0, matrix=[2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]),
    ]
    path = write_gltf(
        tmp_path, primitive, arrays=arrays, nodes=nodes, scenes=[dict(nodes=[0]), dict(nodes=[1])], scene=1
    )
    assert_by_place(path)
    for missing in (dict(scenes=[]), dict(nodes=[], scenes=[]), dict(scenes=[dict(nodes=[0])])):
        assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, **missing))
    mirrored = arrays | dict(
        P=((VERTICES * [1, 1, -1]).astype("f4"), {}), I=(FACES[:, ::-1].astype("u2").flatten(), {})
    )
    for node in (dict(scale=[1, 1, -1]), dict(scale=[-1, -1, -1], rotation=[0, 0, 1, 0])):
        assert_by_place(write_gltf(tmp_path, primitive, arrays=mirrored, nodes=[dict(mesh=0, **node)]))


def test_skins_of_a_glb(tmp_path):
    "The joints place a skinned mesh; what its own node says does not count. Morphs by their weights."
    bones = len(VERTICES) // 2
    joints = np.zeros((len(VERTICES), 4), "u1")
    joints[bones:, 0] = 1
    weights = np.tile(np.array([255, 0, 0, 0], "u1"), (len(VERTICES), 1))
    scale = np.diag([0.5, 0.5, 0.5, 1])
    binds = np.stack([scale, scale]).astype("f4").reshape(2, 16)
    arrays = dict(
        P=((VERTICES * 2 - np.where(np.arange(len(VERTICES)) < bones, 0, 2)[:, None] * [1, 0, 0]).astype("f4"), {}),
        C=(COLORS.astype("f4"), {}),
        I=INDEX,
        J=(joints, {}),
        W=(weights, dict(normalized=True)),
        B=(binds, {}),
    )
    primitive = dict(attributes=dict(POSITION="P", COLOR_0="C", JOINTS_0="J", WEIGHTS_0="W"), indices="I")
    nodes = [dict(mesh=0, skin=0, scale=[7, 7, 7]), dict(name="hips"), dict(name="head", translation=[1, 0, 0])]
    tables = dict(nodes=nodes, scenes=[dict(nodes=[0, 1, 2])], skins=[dict(joints=[1, 2], inverseBindMatrices="B")])
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, **tables))
    arrays = dict(
        P=((VERTICES - [0, 0.5, 0]).astype("f4"), {}),
        C=(COLORS.astype("f4"), {}),
        I=INDEX,
        M=((VERTICES * 0 + [0, 1, 0]).astype("f4"), {}),
    )
    primitive = dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I", targets=[dict(POSITION="M")])
    meshes = [dict(primitives=[primitive], weights=[0.5])]
    assert_by_place(write_gltf(tmp_path, {}, arrays=arrays, meshes=meshes))


@pytest.mark.parametrize("wrap,shift,sign", [(10497, 3, 1), (33648, 2, 1), (33648, 1, -1)])
def test_wrapped_textures_of_a_glb(tmp_path, wrap, shift, sign):
    uv = np.stack([sign * DOWN[:, 0] + shift + (sign < 0), DOWN[:, 1]], 1)
    arrays = dict(P=POINTS, I=INDEX, T=(uv.astype("f4"), {}))
    primitive = dict(attributes=dict(POSITION="P", TEXCOORD_0="T"), indices="I", material=0)
    tables = dict(materials=[SKIN], samplers=[dict(wrapS=wrap)], textures=[dict(source=0, sampler=0)])
    assert_by_place(write_gltf(tmp_path, primitive, arrays=arrays, **tables), 0.02)


@pytest.mark.parametrize(
    "change,words",
    [
        (dict(extensionsRequired=["KHR_draco_mesh_compression"]), ["KHR_draco_mesh_compression"]),
        (dict(extensionsRequired=["EXT_meshopt_compression"]), ["EXT_meshopt_compression"]),
        (dict(extensionsRequired=["KHR_texture_basisu"]), ["KHR_texture_basisu"]),
        (dict(asset=dict(version="1.0")), ["1.0", "2.0"]),
        (dict(asset={}), ["2.0"]),
        (dict(meshes=[]), ["damaged"]),
        (dict(accessors=[]), ["damaged"]),
        (dict(nodes=[dict(mesh=0, children=[0])]), ["node 0"]),
        (dict(nodes=[dict(mesh=0, rotation="x")]), ["damaged"]),
        (dict(scene=7), ["damaged"]),
        (dict(images=[dict(uri="gone.png")]), ["gone.png", "not there"]),
        (dict(images=[dict(uri="data:image/png;base64,@@@@")]), ["image"]),
        (dict(textures=[dict(extensions=dict(KHR_texture_basisu=dict(source=0)))]), ["without an image"]),
        (dict(buffers=[dict(byteLength=10, uri="gone.bin")]), ["gone.bin", "not there"]),
        (dict(materials=[dict(pbrMetallicRoughness=dict(baseColorTexture=dict(index=0, texCoord=3)))]), ["TEXCOORD_3"]),
    ],
)
def test_a_wrong_glb_is_refused_by_name(tmp_path, change, words):
    arrays = dict(P=POINTS, I=INDEX, T=(DOWN, {}))
    primitive = dict(attributes=dict(POSITION="P", TEXCOORD_0="T"), indices="I", material=0)
    assert_refused(write_gltf(tmp_path, primitive, arrays=arrays, **(dict(materials=[SKIN]) | change)), *words)


def test_compressed_parts_that_are_not_required_are_refused(tmp_path):
    "Exporters forget to say that a decoder is required; without it all vertices would lie at the origin."
    arrays = dict(P=POINTS, C=(COLORS.astype("f4"), {}), I=INDEX)
    draco = dict(extensions=dict(KHR_draco_mesh_compression=dict(bufferView=0, attributes=dict(POSITION=0))))
    primitive = dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I", **draco)
    path = write_gltf(tmp_path, primitive, arrays=arrays, binary=False)
    assert_by_place(path)  # an uncompressed copy lies beside
    scene = json.loads(path.read_text())
    for accessor in scene["accessors"]:
        del accessor["bufferView"]
    path.write_text(json.dumps(scene))
    assert_refused(path, "KHR_draco_mesh_compression")


def test_cut_glbs(tmp_path):
    arrays = dict(P=POINTS, C=(COLORS.astype("f4"), {}), I=INDEX)
    path = write_gltf(tmp_path, dict(attributes=dict(POSITION="P", COLOR_0="C"), indices="I"), arrays=arrays)
    data = path.read_bytes()
    for length in (0, 3, 4, 12, 19, 40, 300, len(data) // 2):
        path.write_bytes(data[:length])
        assert_refused(path)
    path.write_bytes(b"glTF" + struct.pack("<II", 1, 100) + data[12:])
    assert_refused(path, "version 1")


def test_inverted_faces_are_named_as_such():
    "All of them, and every second one; a few degenerate and doubled ones do no harm."
    from recon.data.checks import ScanRejected, check_surface
    from recon.geometry.query import MeshQuery

    vertices, faces = torch.tensor(VERTICES).float(), torch.tensor(FACES)
    with pytest.raises(ScanRejected, match="its faces are inverted"):
        check_surface(MeshQuery(vertices, faces.flip(1).contiguous()))
    mixed = faces.clone()
    mixed[::3] = mixed[::3].flip(1)
    with pytest.raises(ScanRejected, match="some of its faces are inverted: [0-9]+% of its edges"):
        check_surface(MeshQuery(vertices, mixed))
    more = torch.cat([faces, faces[:5], torch.tensor([[0, 0, 1], [5, 5, 5]])])
    assert check_surface(MeshQuery(vertices, more)) <= 0.05
