// What the page itself says; what is rated is said by the standard.
"use strict";

const WORDS = {
  en: {
    language: "中文", undo: "Undo", skip: "Skip", submit: "Done", submitKey: "Done (Enter)", cancel: "Cancel",
    of: (done, all) => `${done} of ${all}`, round: (n) => `round ${n}`,
    reason: "Why can it not be rated?", anomalies: "Anomalies", box: "draw a box", note: "a few words", remove: "remove",
    drawing: (name) => `Draw a box around it: ${name}. Esc ends it.`,
    keys: "1–9 level · ↑ ↓ question · Enter done · U undo · S skip · L 中文",
    pairKeys: "← left · → right · 0 alike · U undo · S skip · L 中文",
    left: "Left", right: "Right", tie: "Alike",
    again: "You and others differed on this picture. Read the question again:",
    said: (levels) => `what was said: ${levels.join(", ")}`,
    model: "A model sees this picture otherwise:",
    finished: "Nothing is left for you here. Thank you.", none: "No project is open. Ask your lead.",
    token: "Open the link with your token that your lead gave you.",
    missing: (n) => `${n} questions are left`, lost: "The server does not answer. Your label is kept here and sent again.",
    undone: "Taken back", nopicture: "This picture cannot be shown; skip it.",
  },
  zh: {
    language: "English", undo: "撤销", skip: "跳过", submit: "完成", submitKey: "完成（回车）", cancel: "取消",
    of: (done, all) => `${done} / ${all}`, round: (n) => `第 ${n} 轮`,
    reason: "为什么无法评分？", anomalies: "异常", box: "画框", note: "简要说明", remove: "删除",
    drawing: (name) => `请框出：${name}。按 Esc 结束。`,
    keys: "1–9 打分 · ↑ ↓ 换题 · 回车 完成 · U 撤销 · S 跳过 · L English",
    pairKeys: "← 左图 · → 右图 · 0 一样 · U 撤销 · S 跳过 · L English",
    left: "左图", right: "右图", tie: "一样好",
    again: "你和其他人对这张图的评分不一致，请重新阅读问题：",
    said: (levels) => `已有评分：${levels.join("、")}`,
    model: "模型对这张图的看法不同：",
    finished: "没有需要你评的图了，谢谢。", none: "没有进行中的项目，请联系负责人。",
    token: "请打开负责人给你的带口令的链接。",
    missing: (n) => `还有 ${n} 题未答`, lost: "服务器没有响应，评分已保存在本机，会自动重发。",
    undone: "已撤销", nopicture: "这张图无法显示，请跳过。",
  },
};
