/** The types of `hub.js`, the browser client of a hub. */

/** The token of a connection or a channel. `""`, or an `UnauthorizedError`, refuses; any other error is tried again. */
export type GetToken = (context: { channel?: string }) => Promise<string>;

export type ConnectionState = "disconnected" | "connecting" | "connected";
export type SubscriptionState = "unsubscribed" | "subscribing" | "subscribed";

export interface StreamPosition {
  epoch: string;
  offset: number;
}

export interface ClientInfo {
  client: string;
  user: string;
  connInfo?: any;
  chanInfo?: any;
}

export interface Publication<T = any> {
  channel: string;
  data: T;
  /** Its place in the channel's history, where the channel keeps one. */
  offset?: number;
  /** The client that published; absent where the server did. */
  info?: ClientInfo;
  tags?: Record<string, string>;
  /** In Unix milliseconds, where the channel keeps history. */
  time?: number;
}

export interface TagsFilter {
  op?: "" | "and" | "or" | "not";
  key?: string;
  cmp?: "eq" | "neq" | "in" | "nin" | "ex" | "nex" | "sw" | "ew" | "ct" | "lt" | "lte" | "gt" | "gte";
  val?: string;
  vals?: string[];
  nodes?: TagsFilter[];
}

/** Bounds of the publishes that are kept while there is no connection. */
export interface OutboxOptions {
  /** Publishes that are kept; 0 keeps none. 100 by default. */
  maxMessages?: number;
  /** Milliseconds that each is kept. 60,000 by default. */
  maxAge?: number;
}

/** Times are in milliseconds. */
export interface HubOptions {
  token?: string;
  getToken?: GetToken;
  /** Sent with each connect. */
  data?: unknown;
  /** What the server calls this kind of client. */
  name?: string;
  minReconnectDelay?: number;
  maxReconnectDelay?: number;
  /** How long a connection, or the reply to a call, may take. */
  timeout?: number;
  /** Whether the requests of HTTP streaming carry cookies. A WebSocket always carries those of the hub's site. */
  credentials?: RequestCredentials;
  outbox?: OutboxOptions;
}

export interface SubscribeOptions {
  token?: string;
  getToken?: GetToken;
  /** Sent with each subscribe. */
  data?: unknown;
  /** Get what was missed after a reconnect. */
  recoverable?: boolean;
  /** Let the server watch for gaps without recovery. */
  positioned?: boolean;
  /** Be told who comes and goes. */
  joinLeave?: boolean;
  /** Where to begin. */
  since?: StreamPosition;
  /** So many publications of the channel's history come first, then the live ones. Implies `recoverable`. */
  rewind?: number;
  /** Get only the publications whose tags pass. Not with `rewind`. */
  tagsFilter?: TagsFilter;
}

export interface PublishOptions {
  /** A key of your own, of at most 64 printable ASCII characters, to repeat a publish that failed. */
  idempotencyKey?: string;
}

export interface HistoryOptions {
  /** 0 asks for the position alone, -1 for all that the hub gives. */
  limit?: number;
  since?: StreamPosition;
  /** From the newest to the oldest. */
  reverse?: boolean;
}

export interface Ended {
  code: number;
  reason: string;
}

export interface SubscribedContext {
  channel: string;
  recoverable: boolean;
  positioned: boolean;
  wasRecovering: boolean;
  recovered: boolean;
  data?: any;
  streamPosition?: StreamPosition;
}

export interface PresenceEvent {
  channel: string;
  info: ClientInfo;
}

export interface HubEvents {
  connecting: Ended & { attempt: number; delay: number };
  connected: { client: string; data?: any };
  disconnected: Ended;
  error: { type: string; error: Error; url: string; transport: string; answer: string };
  message: { data: any };
  subscribed: SubscribedContext;
  subscribing: { channel: string };
  unsubscribed: { channel: string };
  publication: Publication;
  join: PresenceEvent;
  leave: PresenceEvent;
}

export interface SubscriptionEvents<T = any> {
  subscribing: Ended & { channel: string };
  subscribed: SubscribedContext;
  unsubscribed: Ended & { channel: string };
  publication: Publication<T>;
  join: PresenceEvent;
  leave: PresenceEvent;
  error: { channel: string; type: string; error: HubError };
}

/** What failed: a hub's error (`code` from 100), or the client's own (below 100). */
export class HubError extends Error {
  constructor(code: number, message: string, temporary?: boolean);
  readonly code: number;
  /** Whether to try again. */
  readonly temporary: boolean;
}

/** The call was refused, since the outbox is full, or 100 other calls wait for the connection already. */
export class QueueFullError extends HubError {}

/** The call was refused, since the hub would close the connection for a message of this size. */
export class MessageTooLargeError extends HubError {}

/** The publish was in the outbox for as long as `outbox.maxAge` says. */
export class MessageExpiredError extends HubError {}

/** Thrown by a `getToken`: this user gets none, and the client stops. */
export class UnauthorizedError extends Error {}

export class Hub {
  /**
   * @param url the hub's address, or its WebSocket endpoint's
   * @throws TypeError the address is none, or there is no such option
   */
  constructor(url: string | URL, options?: HubOptions);
  /** The address of the WebSocket endpoint. */
  readonly url: string;
  readonly state: ConnectionState;
  /** Connect, and stay connected until `disconnect` or a refusal. */
  connect(): void;
  /** Close the connection. Nothing but `connect` opens it again. */
  disconnect(): void;
  /** The token for the next connect. */
  setToken(token: string): void;
  /** The data for the next connect, which is a login. */
  setData(data: unknown): void;
  /** Subscribe to a channel now and after each reconnect, until its `unsubscribe`. */
  subscribe<T = any>(channel: string, options?: SubscribeOptions): Subscription<T>;
  /** Publish, or keep the publish in the outbox until there is a connection. */
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<void>;
  /** Call a method of the app. */
  rpc<T = any>(method: string, data?: unknown): Promise<{ data: T }>;
  /** Send a message that gets no reply. */
  send(data: unknown): Promise<void>;
  on<E extends keyof HubEvents>(event: E, listener: (context: HubEvents[E]) => void): this;
  off<E extends keyof HubEvents>(event: E, listener: (context: HubEvents[E]) => void): this;
}

/** Made by `Hub.subscribe`. */
export class Subscription<T = any> {
  private constructor();
  readonly channel: string;
  readonly state: SubscriptionState;
  /** Subscribe again after `unsubscribe`. */
  subscribe(): void;
  unsubscribe(): void;
  publish(data: T, options?: PublishOptions): Promise<void>;
  history(options?: HistoryOptions): Promise<{ publications: Publication<T>[]; epoch: string; offset: number }>;
  presence(): Promise<{ clients: Record<string, ClientInfo> }>;
  presenceStats(): Promise<{ numClients: number; numUsers: number }>;
  on<E extends keyof SubscriptionEvents<T>>(event: E, listener: (context: SubscriptionEvents<T>[E]) => void): this;
  off<E extends keyof SubscriptionEvents<T>>(event: E, listener: (context: SubscriptionEvents<T>[E]) => void): this;
}
