"""The page for people: what it says is what the files say, it needs nothing else, and it never breaks on what is missing."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from run_folders import evaluation, make_project, run_folder

from cardium.config import Settings
from cardium.data.manifest import SCHEMA
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Evaluation, Interval, OtherCollection
from cardium.evaluation.leaderboard import leaderboard_text
from cardium.evaluation.promotion import Action, Challenger, Champion, Expected, Promotion, Served
from cardium.reporting.report import index_page
from cardium.stages import report
from cardium.workspace import RunId


class Page(HTMLParser):
    """The text of a page, its links and sources, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given["href"] or ""] if "href" in given else []
        self.sources += [given["src"] or ""] if "src" in given else []
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    settings = make_project(tmp_path / "project")
    run_folder(settings, "mobilenetv2", real=False, seed=1)
    run_folder(settings, "inceptionv3", real=False, seed=2)
    run_folder(settings, "mobilenetv2", protocol="published", real=False, seed=3)
    evaluation(settings, {"cmri-mobilenetv2": 0.9, "cmri-inceptionv3": 0.85, "cmri-mobilenetv2-published": 0.97})
    manifest = settings.root / "processed/cmri/manifest"
    manifest.mkdir(parents=True)
    counts = {name: {"records": 30, "groups": 6, "distinct": 30} for name in ("Normal", "Sick")}
    facts = {"records": 60, "groups": 12, "copies": 4, "conflicts": [], "rejected": {"total": 3}, "counts": counts}
    (manifest / "fingerprint.json").write_text(json.dumps(facts))
    return settings


def run_id(settings: Settings, run: str) -> str:
    return json.loads((settings.root / RunId.parse(run).folder / "run.json").read_text())["id"]


def promotion(
    settings: Settings,
    action: Action = "promoted",
    champion: str = "",
    summary: str = "",
    champion_id: str = "",
    served: Served | None = None,
) -> None:
    """promotion.json: cmri-mobilenetv2, as it is evaluated now, was put forward against `champion`."""
    folder = settings.root / "reports/cmri/promotion"
    folder.mkdir(parents=True, exist_ok=True)
    summary = summary or "cmri-mobilenetv2 is the champion: <b>better</b>"
    challenger = Challenger("cmri-mobilenetv2", run_id(settings, "cmri-mobilenetv2"), 1, 0.7, 10, "random", [])
    before = Champion(champion, champion_id or run_id(settings, champion), 1) if champion else None
    Promotion("cmri", "cardium-cmri", action, summary, [summary], challenger, before, served=served).write(folder)


def page(settings: Settings) -> Page:
    report.run(settings, "cmri")
    return Page((settings.root / "reports/cmri/report/index.html").read_text(encoding="utf-8"))


def scores(settings: Settings, run: str) -> dict[str, Any]:
    table = json.loads((settings.root / "reports/cmri/evaluation/metrics.json").read_text())
    return table["runs"][run]["image"]


def test_the_page_names_the_champion_with_its_own_score_and_interval(project: Settings) -> None:
    promotion(project)
    made = page(project)
    score = scores(project, "chosen")["balanced_accuracy"]
    assert "Use cmri-mobilenetv2 (version 1)." in made.text
    assert "chosen by validation among 2 runs" in made.text
    assert "trained on 2 of 4 folds" in made.text
    own = scores(project, "cmri-mobilenetv2")["balanced_accuracy"]
    assert f"{own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]" in made.text
    assert f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" in made.text
    published = scores(project, "cmri-mobilenetv2-published")["balanced_accuracy"]["value"]
    assert f"As the original would report it {published:.3f}" in made.text
    recall = scores(project, "cmri-mobilenetv2")["recall_Sick"]
    assert f"{recall['value']:.3f} [{recall['low']:.3f}, {recall['high']:.3f}]" in made.text
    assert "<b>better</b>" in made.text, "text from files is text"
    assert not made.open
    told = json.loads((project.root / "reports/cmri/report/report.json").read_text())
    assert told["advice"]["score"] == score
    assert told["said"] in made.text


def test_a_model_that_was_not_promoted_is_not_recommended(project: Settings) -> None:
    promotion(project, action="kept")
    assert "No model is recommended yet." in page(project).text
    promotion(project, action="kept", champion="cmri-inceptionv3")
    assert "Use cmri-inceptionv3 (version 1)." in page(project).text, "an older champion stays the champion"


def test_a_retrained_run_that_was_declined_does_not_lend_its_score_to_the_version_that_is_served(project: Settings) -> None:
    expected = Expected(Interval(0.812, 0.71, 0.9), Interval(0.833, 0.72, 0.91), 3)
    served = Served("cmri-mobilenetv2", "an earlier training", 1, expected)
    declined = "cmri-mobilenetv2 is not promoted: its score 0.440 is not higher"
    promotion(project, "kept", "cmri-mobilenetv2", declined, champion_id="an earlier training", served=served)
    text = page(project).text
    assert "Use cmri-mobilenetv2 (version 1)." in text
    assert "expect a balanced accuracy of 0.833 [0.720, 0.910]" in text
    assert f"Last promotion: {declined}." in text
    assert "It is an earlier training" in text
    told = json.loads((project.root / "reports/cmri/report/report.json").read_text())["advice"]
    assert (told["own"], told["current"], told["patient_score"]["value"]) == (None, False, 0.833)
    promotion(project, "kept", "cmri-mobilenetv2", declined, champion_id="an earlier training")
    assert "What to expect of it was not recorded" in page(project).text, "nor where the promotion is of an older version"


def test_a_champion_that_cannot_be_told_from_chance_level_is_not_green(project: Settings) -> None:
    expected = Expected(Interval(0.589, 0.55, 0.62), Interval(0.688, 0.429, 0.929), 3)
    served = Served("cmri-mobilenetv2", run_id(project, "cmri-mobilenetv2"), 2, expected)
    promotion(project, "kept", "cmri-mobilenetv2", champion_id=served.run_id, served=served)
    text = page(project).text
    assert "cmri-mobilenetv2 (version 2) is served, but its score cannot be told from chance level." in text
    assert "0.688 [0.429, 0.929]: the interval includes chance level, 0.500" in text
    html = (project.root / "reports/cmri/report/index.html").read_text(encoding="utf-8")
    assert 'class="verdict warning"' in html
    assert 'class="verdict good"' not in html + (project.root / "reports/index.html").read_text(encoding="utf-8")


def test_a_page_of_generated_data_says_so_before_any_score(project: Settings) -> None:
    promotion(project)
    assert "Generated" not in page(project).text
    for path in ("processed/cmri/manifest/fingerprint.json", "reports/cmri/evaluation/metrics.json"):
        table = json.loads((project.root / path).read_text())
        table.get("data", table)["generated"] = True
        (project.root / path).write_text(json.dumps(table))
    text = page(project).text
    said = text.index("Generated demo data, no real patients; made to look like the CAD Cardiac MRI Dataset")
    assert said < text.index("Use cmri-mobilenetv2")
    assert "kaggle.com" not in text, "the real collection's page is not the data's"
    assert "Generated demo data" in Page((project.root / "reports/index.html").read_text(encoding="utf-8")).text
    found = Evaluation.read(project.root / "reports/cmri/evaluation", "cmri")
    assert leaderboard_text(found).startswith("Generated demo data")


def test_wrong_cases_are_listed_the_surest_first_with_their_files(project: Settings) -> None:
    promotion(project)
    path = project.root / "reports/cmri/evaluation/predictions/cmri-mobilenetv2.parquet"
    table = pd.read_parquet(path)
    sick = table["label"] == 1
    table["p_Sick"] = np.where(sick, 0.9, 0.1)
    first, second = table.loc[sick, "group"].unique()[:2]
    table.loc[table["group"] == first, "p_Sick"] = 0.3
    table.loc[table["group"] == second, "p_Sick"] = 0.2
    table.assign(p_Normal=1 - table["p_Sick"]).to_parquet(path)
    made = page(project)
    assert "cmri-mobilenetv2 on test records: 2 of 12 patients are wrong" in made.text
    assert f"{second} Sick Normal 0.800 {first} Sick Normal 0.700" in made.text
    assert not [link for link in made.links if "/data/" in link], "without a manifest no file is known"
    paths = [f"Sick/Directory_1/a b{number}.jpg" for number in range(60)]
    named = table.sort_values("record")
    of_class = np.where(named["label"] == 1, "Sick", "Normal")
    manifest = pd.DataFrame({name: [0] * 60 for name in SCHEMA})
    manifest = manifest.assign(path=paths, group=named["group"].to_numpy(), label=of_class)
    manifest.to_parquet(project.root / "processed/cmri/manifest/manifest.parquet", index=False)
    record = int(table.loc[table["group"] == second, "record"].min())
    assert f"../../../data/cmri/Sick/Directory_1/a%20b{record}.jpg" in page(project).links


def test_the_page_needs_no_network_and_no_other_file(project: Settings) -> None:
    promotion(project)
    made = page(project)
    assert made.sources
    assert all(source.startswith("data:image/png;base64,") for source in made.sources)
    outside = [link for link in made.links if not link.startswith(("#", "../../index.html", "https://www.kaggle.com/"))]
    assert not outside
    text = (project.root / "reports/cmri/report/index.html").read_text(encoding="utf-8")
    assert str(project.root) not in text, "a path of this machine"
    assert "<script" not in text


def test_what_other_verbs_found_is_shown_where_it_is(project: Settings) -> None:
    promotion(project)
    text = page(project).text
    assert "Not run yet: cardium audit cmri" in text
    assert "Not run yet: cardium explain --dataset cmri --model mobilenetv2" in text
    folder = project.root / "reports/cmri"
    gallery = folder / "explanations/cmri-mobilenetv2/gradcam/gallery-right.png"
    gallery.parent.mkdir(parents=True)
    Image.new("L", (10, 10)).save(gallery)
    tested = {"gradcam": {"deletion": 0.6, "insertion": 0.7}, "random": {"deletion": 0.4, "insertion": 0.5}}
    (gallery.parent / "faithfulness.json").write_text(json.dumps({"methods": tested}))
    audit = folder / "audit/audit.json"
    audit.parent.mkdir()
    verdict = {"verdict": "leak", "headline": "A split by files leaks", "said": ["10 of 60 files are copies.", "<i>two</i>"]}
    audit.write_text(json.dumps({"verdict": verdict}))
    elsewhere = folder / "external/other/external.json"
    elsewhere.parent.mkdir(parents=True)
    own = Evaluation.read(folder / "evaluation", "cmri")
    score = {"balanced_accuracy": Interval(0.512, 0.41, 0.61)}
    row = dataclasses.replace(own.runs["cmri-mobilenetv2"], image=score)
    other = OtherCollection("other", "", {"Normal": 20, "Sick": 30}, 0)
    elsewhere.write_text(json.dumps(dataclasses.replace(own, runs={row.name: row}, external=other).to_json()))
    text = page(project).text
    assert "Not run yet" not in text
    assert "0.60 (places at random: 0.40); while only that is shown: 0.70 (places at random: 0.50). That is not better" in text
    assert "A split by files leaks The scores on this page are not affected: patients are kept apart" in text
    assert "10 of 60 files are copies. <i>two</i>" in text
    told = json.loads((folder / "report/report.json").read_text())
    assert told["audit"] == {"headline": verdict["headline"], "said": verdict["said"]}
    assert "On another collection, other 0.512" in text
    assert "50 records that are not in this dataset" in text


def test_the_index_leads_to_every_page(project: Settings) -> None:
    promotion(project)
    page(project)
    index = Page((project.root / "reports/index.html").read_text(encoding="utf-8"))
    assert index.links == ["cmri/report/index.html"]
    assert (project.root / "reports" / index.links[0]).is_file()


def test_the_index_passes_over_a_dataset_that_is_evaluated_again_at_the_moment(project: Settings) -> None:
    promotion(project)
    page(project)
    (project.root / "reports/cmri/evaluation/metrics.json").unlink()
    assert Page(index_page(project)).links == []


def test_without_an_evaluation_the_error_names_the_verb_and_nothing_is_written(project: Settings) -> None:
    (project.root / "reports/cmri/evaluation/metrics.json").unlink()
    with pytest.raises(CardiumError, match="cardium evaluate --dataset cmri"):
        report.run(project, "cmri")
    assert not (project.root / "reports/cmri/report").exists()
    assert not (project.root / "reports/index.html").exists()


def test_a_champion_that_was_put_forward_again_is_no_news(project: Settings) -> None:
    promotion(
        project,
        action="kept",
        summary="cmri-mobilenetv2 is not promoted: 0.8 is not higher than 0.8",
        champion="cmri-mobilenetv2",
    )
    text = page(project).text
    assert "Use cmri-mobilenetv2 (version 1)." in text
    assert "not promoted" not in text
    promotion(project, action="kept", summary="cmri-mobilenetv2 is not promoted: not better", champion="cmri-inceptionv3")
    assert "cmri-mobilenetv2 is not promoted: not better." in page(project).text
