/**
 * What is wrong with the page for whoever uses it; runs in the page. Contrast as WCAG 2.2 sections 1.4.3 and 1.4.11
 * have it: 4.5 for text of any size, 3 for the edges of what can be used.
 */
export const inspectPage = () => {
  const problems = [];
  // What is folded away is there, too.
  for (const details of document.querySelectorAll('details')) details.open = true;
  const parse = (color) => {
    const [red, green, blue, alpha = 1] = color.match(/[\d.]+/g).map(Number);
    return {rgb: [red, green, blue], alpha};
  };
  const over = ({rgb, alpha}, below) => rgb.map((part, index) => part * alpha + below[index] * (1 - alpha));
  const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255];
  const backgroundOf = (element) => {
    if (!element) return canvas;
    return over(parse(getComputedStyle(element).backgroundColor), backgroundOf(element.parentElement));
  };
  const luminance = (rgb) => {
    const [red, green, blue] = rgb.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const demand = (what, color, background, least) => {
    const found = contrast(over(parse(color), background), background);
    if (found < least) problems.push(`${what}: contrast ${found.toFixed(2)}, not ${least}`);
  };
  const isVisible = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility === 'visible';
  const name = (element) => `<${element.tagName.toLowerCase()}> ${(element.innerText || element.name || '').trim().slice(0, 40)}`;

  for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();) {
    const element = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && isVisible(element)) demand(name(element), getComputedStyle(element).color, backgroundOf(element), 4.5);
  }
  for (const element of document.querySelectorAll('input, button, select, textarea')) {
    if (element.type === 'hidden') continue;
    if (element.tagName !== 'BUTTON' && !element.labels?.length) problems.push(`${name(element)}: no label`);
    if (element.tagName === 'BUTTON' && !element.innerText.trim()) problems.push('a button without text');
    const [style, outside] = [getComputedStyle(element), backgroundOf(element.parentElement)];
    const edge = contrast(over(parse(style.borderTopColor), outside), outside);
    if (edge < 3 && contrast(backgroundOf(element), outside) < 3) problems.push(`${name(element)}: its edge has a contrast of ${edge.toFixed(2)}, not 3`);
    if (element.placeholder) demand(`the placeholder of ${name(element)}`, getComputedStyle(element, '::placeholder').color, backgroundOf(element), 4.5);
    if (element.getBoundingClientRect().height < 24) problems.push(`${name(element)}: too small to hit`);
    if (element.tabIndex > 0) problems.push(`${name(element)}: an order of its own`);
  }
  if (!document.documentElement.lang) problems.push('no language');
  if (!document.title) problems.push('no title');
  if (document.querySelectorAll('h1').length !== 1) problems.push('not one heading');
  if (document.querySelectorAll('main').length !== 1) problems.push('no main part');
  if (document.documentElement.scrollWidth > innerWidth) problems.push('wider than the screen');
  if (document.querySelector('script, [style*="url("], link, img, iframe')) problems.push('loads or runs something');
  return {problems, background: backgroundOf(document.body)};
};
