// The token, where the service wants one: kept until the tab is closed.

import { useState } from "preact/hooks";
import { giveToken } from "./service";

export function TokenForm({ wrong }: { wrong: boolean }) {
  const [token, setToken] = useState("");
  const [refused, setRefused] = useState(false);
  return (
    <form
      class="panel token"
      onSubmit={(event) => {
        event.preventDefault();
        setRefused(!giveToken(token.trim()));
      }}
    >
      <h2>This service wants its token</h2>
      <label for="token">Token</label>
      <input
        id="token"
        type="password"
        autocomplete="off"
        required
        value={token}
        aria-describedby="token-note"
        onInput={(event) => setToken(event.currentTarget.value)}
      />
      {refused && (
        <p class="problem" role="alert">A token has letters, digits and signs of ASCII alone, and no spaces.</p>
      )}
      {wrong && !refused && <p class="problem" role="alert">The one that was given is another.</p>}
      <p id="token-note" class="note">It is kept until this tab is closed.</p>
      <button class="primary">Go on</button>
    </form>
  );
}
