"use strict";
// Begins: reads the data, shows the campaign where there is one, and one story at a time.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");
  const place = el("div", { id: "story" });
  let story = null;
  const names = data.stories.map((one, at) => el("option", { value: at }, `${one.title}: ${one.kind || "no failure"}`));
  const choice = el("select", { "aria-label": "which finding", onchange: () => show(Number(choice.value)) }, names);

  function show(at, scroll) {
    choice.value = String(at);
    story = new Story(data.stories[at]);
    replace(place, story.node);
    // Its size is known only now that it is in the document.
    if (story.run.steps.length) {
      story.lanes.measure();
      story.moveTo(story.now);
    }
    if (scroll) place.scrollIntoView();
  }

  if (data.campaign) page.append(campaignNode(data.campaign, (at) => show(at, true)));
  if (data.stories.length > 1) page.append(el("p", {}, ["finding: ", choice]));
  page.append(place);
  if (data.stories.length) show(0);

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (story && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) story.key(event);
  });
  document.documentElement.dataset.ready = "yes";
})();
