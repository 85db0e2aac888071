// Starts the page: views, the server's state, and the API key.

import { getJson, useKey } from "./api.js";
import { byId } from "./dom.js";
import { explain } from "./explain.js";
import { Live } from "./live.js";
import { Race } from "./race.js";
import { enableCopying } from "./snippets.js";

const race = new Race({ needsKey: () => askForKey(), explain });
const live = new Live({ needsKey: () => askForKey(), explain });

function show() {
  const view = location.hash === "#live" ? "live" : "race";
  for (const name of ["race", "live"]) {
    byId(name).hidden = name !== view;
    if (name === view) byId(`to-${name}`).setAttribute("aria-current", "page");
    else byId(`to-${name}`).removeAttribute("aria-current");
  }
  if (view === "live") live.open();
  else live.close();
}

function notice(text) {
  byId("problem-notice").textContent = text;
  byId("problem-notice").hidden = !text;
}

async function load() {
  try {
    const [models, settings] = await Promise.all([getJson("v1/models"), getJson("v1/stepgrpo/settings")]);
    const names = models.data.map((model) => model.id);
    race.offer(names, settings);
    byId("state").textContent = `${names.length === 1 ? names[0] : `${names.length} models`}, policy ${settings.policy}`;
    notice("");
    byId("start").disabled = false;
  } catch (error) {
    byId("start").disabled = true;
    notice(error.message);
    if (error.status === 401) askForKey(error.message);
  }
}

function askForKey(text) {
  if (text) byId("key-text").textContent = `${text} The page keeps it in memory until you close the tab.`;
  if (!byId("key").open) byId("key").showModal();
}

byId("key-form").addEventListener("submit", () => {
  useKey(byId("key-value").value.trim());
  byId("key-value").value = "";
  load().then(show);
});
addEventListener("hashchange", show);
enableCopying();
await load();
show();
