export { unpickle, type PickleValue } from "./unpickle.ts";
