// How a relay lists a server's tools among those of all servers.
import assert from 'node:assert/strict';

/** The server's own tool as it must be in that list, where it is `through`: only its name and the label before its description may differ. */
export const asListed = (tool, name, server, through) => {
  const label = through.description?.slice(0, through.description.length - (tool.description ?? '').length);
  assert.match(label ?? '', new RegExp(`^\\[.*${server}.*\\] ?$`), `${tool.name}: label in its description`);
  return {...tool, name, description: `${label}${tool.description ?? ''}`};
};
