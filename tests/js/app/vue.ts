import { Hub } from "hub-realtime";
import { hubPlugin } from "hub-realtime/vue";
import { createApp } from "vue";

import Room from "./Room.vue";

const hub = new Hub(location.origin);
hub.connect();
createApp(Room).use(hubPlugin(hub)).mount("#app");
