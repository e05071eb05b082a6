"""Chinese (simplified) findings for impressions; built as the English ones."""

from __future__ import annotations

from radserve_export.synthetic._impression_grammar import Kind, Language

_LOBES = ("右肺上叶", "右肺中叶", "右肺下叶", "左肺上叶", "左肺下叶", "左肺舌段")
_ORGANS = ("左肾", "右肾", "肝左叶", "肝右叶", "脾脏", "胰头", "胰尾")
_REGIONS = ("左侧额叶", "右侧额叶", "左侧顶叶", "右侧顶叶", "左侧颞叶", "右侧颞叶", "左侧基底节", "右侧基底节")
_MEASURED = (
    "{place}见一{name}，[大小|直径]约{n}mm",
    "{place}[可见|示]{n}mm{name}",
    "{name}位于{place}，[直径|长径]{n}mm",
    "{place}{name}，前次{other}mm，现{n}mm",
    "原{place}{name}现[测量|约]{n}mm，前次{other}mm",
    "[发现|复查见]{place}{name}，约{n}mm",
)
_GRADED = (
    "{place}见{grade}{name}",
    "[可见|新见]{place}{grade}{name}",
    "{place}{name}，[为|属]{grade}",
    "{place}[示|有]{grade}{name}",
)
_SIDES = ("左侧", "右侧")
_GRADES = ("少量", "中等量", "大量", "微量")

CHINESE = Language(
    kinds=(
        Kind(names=("结节", "肿块", "实变", "空洞"), places=_LOBES, sentences=_MEASURED),
        Kind(names=("囊肿", "占位", "钙化", "血管瘤"), places=_ORGANS, sentences=_MEASURED),
        Kind(names=("出血", "挫伤", "转移瘤", "脑膜瘤"), places=_REGIONS, sentences=_MEASURED),
        Kind(
            names=("胸腔积液", "气胸", "硬膜下血肿", "血胸"),
            places=_SIDES,
            grades=_GRADES,
            sentences=_GRADED,
            impression="{place}{grade}{name}",
        ),
    ),
    impression="{place}{name}，约{n}mm",
    absent=("未见{name}", "无{name}", "未见[明显|确切]{name}", "未见{name}[及|或]{name2}", "无{name}、{name2}"),
    resolved=("原{place}{name}已[吸收|消失]", "前次{place}{n}mm{name}本次未见"),
    normal=(
        "心影[不大|大小正常]",
        "纵隔[居中|未见异常]",
        "骨质[完整|未见异常]",
        "[肝脏|脾脏|胰腺]形态正常",
        "脑室[大小正常|不大]",
        "对比{n}天前检查",
        "层厚{n}mm",
        "[气道|血管]通畅",
        "CT[平扫|增强扫描]",
    ),
    nothing="未见明显异常。",
    gap="",
    stop="。",
    number="{n}. ",
)
