"""The page as HTML: one file that fetches nothing, runs one script, and shows every name as it is."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_page import FOUND, NAMES, TRAINING, content, run, with_baseline, with_pictures

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.evaluate.runs import against, compare_runs
from yolo_lt.report.blocks import ClassTable, Facts, Gallery, Section, Table
from yolo_lt.report.compare_page import Side, comparison_page
from yolo_lt.report.diagnosis import Diagnosis
from yolo_lt.report.html import MARKS, html
from yolo_lt.report.names import markup
from yolo_lt.report.page import Page, pairs, validation_page
from yolo_lt.report.stats_page import stats_page

VOID = {"meta", "img", "input", "br", "hr", "link"}
LINKS = ("src", "href", "srcset", "action", "formaction", "poster", "data", "background", "ping")
SPEAKING = ("alt", "aria-label")  # attributes with somebody's words in them
NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "x' onload='alert(2)' y=\"",
    "a & b &amp; &lt;c&gt; &#60;",
    "</style></title></script></svg><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- ]]> -->",
    "javascript:alert(3)",
    "類別 فئة",
    "'",
)
WORDS = [f"{name} <b title='&quot;'>\"" for name in NASTY]  # each has what can break out of text and of an attribute


class Node:
    """An element of a page that was read again."""

    def __init__(self, tag, attributes=()):
        self.tag, self.attributes, self.children = tag, dict(attributes), []
        assert len(self.attributes) == len(attributes), "an attribute is there twice"

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def every(self, *tags, **attributes):
        """All elements below, in order, of these tags (of any without one) with these attributes."""
        for child in self.children:
            if isinstance(child, Node):
                has = all(child.attributes.get(k.rstrip("_").replace("_", "-")) == v for k, v in attributes.items())
                if has and (not tags or child.tag in tags):
                    yield child
                yield from child.every(*tags, **attributes)

    def one(self, *tags, **attributes):
        (found,) = self.every(*tags, **attributes)
        return found

    @property
    def kinds(self):
        """Values of its class attribute."""
        return (self.attributes.get("class") or "").split()


class Reader(HTMLParser):
    """Reads a page and refuses one whose elements are not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open = [Node("")]
        self.feed(text)
        self.close()
        assert len(self.open) == 1

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def read(text):
    assert text.lstrip().startswith("<!doctype html>\n<html")
    return Reader(text).open[0]


def named(folder, names):
    """A validation of which every word that comes from outside is taken from `names`."""
    some = [names[i % len(names)] for i in range(10)]
    words = {
        "model": some[0],
        "data": f"/sets/{some[1]}/gt.json",
        "split": some[2],
        "versions": {some[3]: some[4]},
        "command": f"yolo-lt val model={some[5]}",
        "training": {**TRAINING, "recipe": some[6]},
    }
    one, other = (
        run(f"runs/{side}/{some[7]}", names=dict(zip(NAMES, [*some[:3], some[8]], strict=True)), found=found, **words)
        for side, found in (("rfs", FOUND), ("stock", FOUND[:8]))
    )
    more = {"curves": None, "warnings": [some[8], some[9]], "baseline": against(one, other, 10)}
    return with_pictures({**one.report, **more}, folder), (one, other)


def compared(folder, names):
    """The page of a comparison whose runs lie in folders that are called so."""
    report, runs = named(folder, names)
    more = {"warnings": report["warnings"], "curves": None, "training": None}
    told = [Side([r.name], [{**r.report, **more}]) for r in reversed(runs)]
    return comparison_page(told, [compare_runs(runs[:1], runs[1:], 10)], f"yolo-lt compare {names[0]}")


def counted(names):
    stats = ClassStats.from_lists([[0]] * 30 + [[1]] * 4 + [[2]], 3, names[:3])
    return stats_page(
        Diagnosis(make_plan(stats, config.resolve({}))), f"sets/{names[3]}/data.yaml", f"yolo-lt {names[4]}"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def report(folder):
    """A report with everything that there can be."""
    report = with_pictures(with_baseline(), folder)
    row = {"n_gt": 12, "never_seen": 3, "lost_to_nms": 2, "lost_to_max_det": 1}
    report["errors"]["lost"] = {"iou": 0.5, "conf": 0.001, "nms_iou": 0.7, "max_det": 300, "all": row}
    return report


@pytest.fixture(scope="module")
def text(report, folder):
    return html(validation_page(report, folder))


@pytest.fixture(scope="module")
def page(text):
    return read(text)


@pytest.fixture(scope="module")
def nasty(folder):
    """Pages of all kinds, with nasty names and with plain ones."""
    plain = [f"name{i}" for i in range(10)]
    both = []
    for names in (WORDS, plain):
        pages = [validation_page(named(folder, names)[0], folder), compared(folder, names), counted(names)]
        both.append([read(html(page)) for page in pages])
    return both


# Names ---------------------------------------------------------------------------------------------------------------


def shape(page):
    """Elements and attributes in order, without what names may be in."""
    return [(node.tag, {k: v for k, v in node.attributes.items() if k not in SPEAKING}) for node in page.every()]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["validation", "comparison", "data set"])
def test_no_element_and_no_attribute_comes_from_a_name(nasty, which):
    found, plain = (shape(pages[which]) for pages in nasty)
    assert [tag for tag, _ in found] == [tag for tag, _ in plain]
    assert found == plain


def test_every_name_is_shown_as_it_is(nasty):
    page = nasty[0][0]
    facts = {row.one("dt").text: row.one("dd").text for row in page.one("section", id="about").every("div")}
    title = f"{Path(WORDS[0]).name} on gt.json, split {WORDS[2]}"
    assert page.one("head").one("title").text == page.one("h1").text == title
    assert facts["model"].startswith(f"{WORDS[0]} (sha256")
    assert facts["data"].startswith(f"/sets/{WORDS[1]}/gt.json (")
    assert facts["split"] == WORDS[2]
    assert facts["versions"] == f"{WORDS[3]} {WORDS[4]}"
    assert facts["training"] == f"recipe {WORDS[6]}, seed 0, epochs 2"
    assert facts["baseline"].startswith(f"runs/stock/{WORDS[7]} (")
    assert page.one("pre").text == f"yolo-lt val model={WORDS[5]}"
    assert [p.text for p in page.one("section", id="about").every("p")] == [WORDS[8], WORDS[9]]
    assert page.one("h3").text == f"▲ tail: {WORDS[2]}"
    captions = [figure.one("figcaption").text for figure in page.one("div", class_="pictures").every("figure")]
    assert captions[0] == f"taken for {WORDS[0]}: confidence 0.90, IoU 1.00"
    pictures = [image.attributes["alt"] for image in page.every("img")]
    assert pictures[0] == f"An object of the class {WORDS[2]}, {captions[0]}"
    shown = [svg.attributes["aria-label"] for svg in page.every("svg")]
    assert any(f"The lowest is {WORDS[2]} (" in alt for alt in shown)
    tips = {title.text.split(": ")[0] for svg in page.every("svg") for title in svg.every("title")}
    assert {WORDS[0], WORDS[1]} <= tips


def test_the_columns_of_a_comparison_are_called_by_their_runs(nasty):
    page = nasty[0][1]
    labels = [f"stock/{WORDS[7]}", f"rfs/{WORDS[7]}"]
    column = page.one("section", id="errors")
    assert [node.one("h3").text for node in column.every("div") if "column" in node.kinds] == labels
    heads = [th.text for th in next(page.one("section", id="classes").every("thead")).every("th")]
    assert heads[5:] == [f"AP50 {labels[0]}", f"AP50 {labels[1]}", f"change {labels[1]}"]


def test_the_name_of_a_run_keeps_its_underscores():
    page = table_of(["a"], ("id", "name", "bin", "AP50 my_run"))
    assert [th.text for th in page.one("thead").every("th")] == ["id", "name", "bin", "AP50 my_run"]


def classes_of(page):
    """Names in the table of classes, and ids."""
    rows = list(next(page.every("tbody")).every("tr"))
    return [row.one("th").text for row in rows], [next(row.every("td")).text for row in rows]


def table_of(names, header=("id", "name", "bin", "AP50")):
    rows = [(i, name, ("head", "tail", None)[i % 3], 0.5) for i, name in enumerate(names)]
    return read(html(Page("t", [Section("classes", "Every class", [ClassTable(header, rows)])])))


@settings(max_examples=60)
@given(st.lists(st.text(max_size=20) | st.sampled_from(NASTY), min_size=1, max_size=5))
@example(list(NASTY))
def test_the_table_of_classes_has_the_names_as_they_are(names):
    page = table_of(names)
    assert classes_of(page) == ([markup(name) for name in names], [str(i) for i in range(len(names))])
    assert [tag for tag, _ in shape(page)] == [tag for tag, _ in shape(table_of(["a"] * len(names)))]


@pytest.mark.parametrize("name", MARKS)
def test_a_class_that_is_called_like_a_bin_is_no_bin(name):
    assert classes_of(table_of([name]))[0] == [name]


@pytest.mark.parametrize("name", MARKS)
def test_nor_is_it_one_among_the_pairs(name):
    report = content(names={**NAMES, 9: name}, bootstrap=0)
    assert [cell.text for cell in cells(*pairs(report).rows[0], header=pairs(report).header)] == [name, "cup", "2", "4"]


def test_a_name_that_ends_like_an_interval_is_not_lost():
    assert classes_of(table_of(["1 [2", "0.5 [a [b"]))[0] == ["1 [2", "0.5 [a [b"]


# One file ------------------------------------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself(page, nasty):
    for found in (page, *nasty[0]):
        links = [(node.tag, v) for node in found.every() for k, v in node.attributes.items() if k in LINKS]
        assert links
        assert all(value.startswith("#" if tag != "img" else "data:image/jpeg;base64,") for tag, value in links)
        assert not {node.tag for node in found.every()} & {"link", "iframe", "object", "embed", "base", "frame"}


def test_every_link_leads_somewhere_on_the_page(page):
    ids = {node.attributes["id"] for node in page.every() if "id" in node.attributes}
    links = [node.attributes["href"][1:] for node in page.every("a", "use") if "href" in node.attributes]
    assert set(links) <= ids
    styles = " ".join(node.attributes.get("style") or "" for node in page.every())
    styles += " ".join(node.attributes.get("clip-path") or "" for node in page.every())
    assert set(re.findall(r"url\(#([^)]*)\)", styles)) <= ids
    labels = [node.attributes["aria-labelledby"] for node in page.every("section")]
    assert set(labels) <= ids


def test_the_style_fetches_nothing(page):
    assert not re.search(r"url\(|@import|https?:", page.one("style").text)


def test_pictures_are_in_the_page(page, report, folder):
    sources = [image.attributes["src"].partition(",")[2] for image in page.every("img")]
    files = [shown["file"] for example in report["examples"] for shown in example["shown"]]
    assert [base64.b64decode(source) for source in sources] == [(folder / file).read_bytes() for file in files]
    assert len(sources) == 4


def test_the_policy_allows_the_one_script_and_pictures_in_the_page(page):
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    rules = {name: values for name, *values in (rule.split() for rule in policy.split(";"))}
    digest = base64.b64encode(hashlib.sha256(page.one("script").text.encode()).digest()).decode()
    assert rules["script-src"] == [f"'sha256-{digest}'"]
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["img-src"] == ["data:"]
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}


def test_the_policy_comes_before_what_it_rules(page):
    tags = [node.tag for node in page.one("head").every()]
    first = [node.attributes.get("http-equiv") for node in page.one("head").every()].index("Content-Security-Policy")
    assert first < min(tags.index("style"), tags.index("title"))


def test_no_script_is_in_an_attribute(page, nasty):
    for found in (page, *nasty[0]):
        assert not [k for node in found.every() for k in node.attributes if k.startswith("on")]


def test_ids_are_unique_with_all_charts(page, nasty):
    assert len(list(page.every("svg"))) == 7
    for found in (page, *nasty[0]):
        ids = [node.attributes["id"] for node in found.every() if "id" in node.attributes]
        assert ids
        assert len(set(ids)) == len(ids)


def test_the_same_report_is_the_same_bytes(text, report, folder):
    assert html(validation_page(report, folder)).encode() == text.encode()


# What is shown how ---------------------------------------------------------------------------------------------------


def test_sections_are_linked_above_and_those_without_content_are_left_out(page):
    links = [(a.attributes["href"], a.text) for a in page.one("nav").every("a")]
    sections = [(f"#{s.attributes['id']}", s.one("h2").text) for s in page.every("section")]
    assert links == sections
    assert len(links) == 7
    small = read(html(Page("t", [Section("a", "A", ["text"]), Section("b", "B", [])])))
    assert [s.attributes["id"] for s in small.every("section")] == ["a"]
    assert small.one("a", class_="skip").attributes["href"] == "#a"


def test_a_column_without_content_says_so():
    page = read(html(Page("t", [Section("a", "A", [], [("one", ["text"]), ("two", [])])])))
    assert [node.text.strip() for node in page.one("section").every("p")] == ["text", "Nothing recorded."]


def cells(*values, header=None, shaded=False):
    names = header or [f"c{i}" for i in range(len(values))]
    page = read(html(Page("t", [Section("a", "A", [Table(names, [values], shaded=shaded)])])))
    return list(next(page.every("tbody")).every("th", "td"))


def test_intervals_are_set_small():
    name, plain, signed, nothing = cells("tail", "0.123 [0.100, 0.150]", "+0.100 [-0.200, +0.300]", "-")
    assert [plain.text, plain.one("small").text] == ["0.123 [0.100, 0.150]", "[0.100, 0.150]"]
    assert [signed.text, signed.one("small").text] == ["+0.100 [-0.200, +0.300]", "[-0.200, +0.300]"]
    assert not list(nothing.every("small"))
    assert not list(name.every("small"))


def test_numbers_stand_on_the_right_with_three_decimals_and_words_do_not():
    shown = cells("x", 1, 0.12345, None, "0.1 [0.0, 0.2]", "better", "-")
    assert [cell.text for cell in shown] == ["x", "1", "0.123", "-", "0.1 [0.0, 0.2]", "better", "-"]
    assert ["num" in cell.kinds for cell in shown] == [False, True, True, True, True, False, True]


@pytest.mark.parametrize(("name", "mark"), MARKS.items())
def test_a_bin_has_the_mark_that_it_has_in_the_charts(name, mark):
    bin_, _ = cells(name, 1, header=("bin", "n"))
    span = bin_.one("span", aria_hidden="true")
    assert (span.text, span.kinds) == (mark, ["mark", name])
    assert bin_.text == f"{mark} {name}"


def test_other_names_have_no_mark_and_are_kept_apart_from_the_text_around():
    (name, _) = cells("فئة", 1)
    assert not list(name.every("span"))
    assert name.one("bdi").text == "فئة"


def test_cells_of_a_confusion_are_shaded_by_their_share_of_the_boxes(page, report):
    rows = {
        row.one("th").text[2:]: row for row in page.every("tr") if any("shaded" in td.kinds for td in row.every("td"))
    }
    assert set(rows) == {"head", "medium", "tail"}
    shares = [td.attributes["style"] for td in rows["tail"].every("td") if "shaded" in td.kinds]
    assert [td.text for td in rows["tail"].every("td")] == ["4", "1", "2", "0", "0", "1"]
    assert shares == [f"--share:{share}" for share in ("0.250", "0.500", "0.000", "0.000", "0.250")]


def test_a_table_is_shaded_only_where_it_is_asked_for_and_never_by_zero():
    assert [cell.attributes.get("style") for cell in cells("tail", 0, 3, shaded=True)] == [None, None, "--share:0.000"]
    assert [cell.attributes.get("style") for cell in cells("tail", 4, 3)] == [None] * 3


def rows_of_classes(page):
    box = page.one("div", class_="classes")
    return [th.text for th in box.one("thead").every("th")], list(box.one("tbody").every("tr"))


def test_the_table_of_classes_keeps_the_numbers_as_they_are(page, report):
    header, rows = rows_of_classes(page)
    assert header == ["id", "name", "bin", "train images", "train instances", "n gt", "AP", "AP50", "AP75"]
    for row, entry in zip(rows, report["per_class"], strict=True):
        raw = [cell.attributes.get("data-v") for cell in row.every("th", "td")]
        values = [entry[k] for k in ("id", "train_images", "train_instances", "n_gt", "AP", "AP50", "AP75")]
        assert [raw[i] for i in (0, 3, 4, 5, 6, 7, 8)] == ["" if v is None else repr(v) for v in values]
        assert raw[1] is raw[2] is None
    assert [td.text for td in rows[3].every("td")][-4:] == ["0", "-", "-", "-"]


def test_only_an_ap_has_a_bar():
    cell = list(table_of(["a"], ("id", "name", "bin", "AP50")).one("tbody").every("td"))[-1]
    assert (cell.kinds, cell.attributes["style"]) == (["num", "bar"], "--v:0.500")
    other = list(table_of(["a"], ("id", "name", "bin", "change")).one("tbody").every("td"))[-1]
    assert (other.kinds, "style" in other.attributes) == (["num"], False)


def test_classes_can_be_picked_by_the_bins_that_they_have(page):
    _, rows = rows_of_classes(page)
    assert [row.attributes["data-bin"] for row in rows] == ["head", "medium", "tail", "tail"]
    boxes = [box.attributes["value"] for box in page.every("input", type="checkbox")]
    assert boxes == ["head", "medium", "tail"]
    assert page.one("output").text == "4 classes"


def test_without_bins_there_is_nothing_to_pick():
    report = content(bins=None, train_images=None, training=None, bootstrap=0)
    classes = [s for s in validation_page(report, Path(".")).sections if s.key == "classes"]
    page = read(html(Page("t", classes)))
    assert not list(page.every("fieldset"))
    assert {row.attributes["data-bin"] for row in rows_of_classes(page)[1]} == {""}


def test_controls_that_need_the_script_are_hidden_without_it(page):
    assert "hidden" in page.one("form").attributes


def test_tiles_stand_in_a_list_with_their_interval_and_difference(page):
    tiles = list(page.one("ul", class_="tiles").every("li"))
    assert [tile.kinds for tile in tiles] == [["tile", name] for name in ("all", "head", "medium", "tail")]
    assert tiles[3].one("span", class_="value").text == "AP50 0.257"
    assert tiles[3].one("span", class_="interval").text.startswith("[0.000, ")
    assert "0.257 higher than stock/val" in tiles[3].text


def test_a_gallery_without_pictures_keeps_its_text():
    page = read(html(Page("t", [Section("a", "A", [Gallery("cup", None, "AP50 0.1", [])])])))
    assert page.one("h3").text == "cup"
    assert page.one("section").one("p").text == "AP50 0.1"
    assert not list(page.every("img"))


def test_facts_without_a_command_have_no_box_for_one():
    page = read(html(Page("t", [Section("a", "A", [Facts([("split", "val")])])])))
    assert (page.one("dt").text, page.one("dd").text) == ("split", "val")
    assert not list(page.every("pre"))


def test_no_line_break_parts_an_interval():
    shown = html(Page("t", [Section("a", "A", ["0.1 higher [+0.074, -0.136], [a, b] and [1, 2, 3]"])]))
    assert "0.1 higher [+0.074,\N{NO-BREAK SPACE}-0.136], [a, b] and [1, 2, 3]" in shown
