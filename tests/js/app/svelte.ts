import { Hub } from "hub-realtime";
import { mount } from "svelte";

import App from "./App.svelte";

const hub = new Hub(location.origin);
hub.connect();
mount(App, { target: document.getElementById("app")!, props: { hub } });
