// An image that is dropped, and what two networks say of it.

import { useEffect, useState } from "preact/hooks";
import { predict } from "./api";
import { milliseconds, percent } from "./format";
import { useAsked } from "./hooks";

const BEST = 3; // answers shown
const SETTLED = 400; // milliseconds

interface Asking {
  label: string;
  id: string;
}

export function ImagePanel({ family, scope, networks }: { family: string; scope: string; networks: Asking[] }) {
  const [image, setImage] = useState<{ file: File; url: string; number: number } | null>(null);
  const [over, setOver] = useState(false);
  const take = (files: FileList | null | undefined) => {
    const file = files?.[0];
    if (file) setImage((before) => ({ file, url: URL.createObjectURL(file), number: (before?.number ?? 0) + 1 }));
  };
  useEffect(() => () => void (image && URL.revokeObjectURL(image.url)), [image]);
  return (
    <section class="panel" aria-labelledby="image-title">
      <h3 id="image-title">Try it on an image</h3>
      <div class="try">
        <label
          class={`drop${over ? " over" : ""}`}
          onDragOver={(event) => {
            event.preventDefault();
            setOver(true);
          }}
          onDragLeave={() => setOver(false)}
          onDrop={(event) => {
            event.preventDefault();
            setOver(false);
            take(event.dataTransfer?.files);
          }}
        >
          <input
            type="file"
            accept="image/*"
            onChange={(event) => {
              take(event.currentTarget.files);
              event.currentTarget.value = ""; // so that the same one can be chosen again
            }}
          />
          {image ? <img key={image.url} src={image.url} alt={`Your image ${image.file.name}`} /> : null}
          <span>{image ? "Another image" : "Drop an image here, or choose one"}</span>
        </label>
        {image && networks.map((each) => (
          <Answer key={each.label} {...each} family={family} scope={scope} image={image.file} number={image.number} />
        ))}
      </div>
      <p class="note">The image goes to this service alone, stays in memory and is not kept.</p>
    </section>
  );
}

interface AnswerProps extends Asking {
  family: string;
  scope: string;
  image: File;
  number: number;
}

function Answer({ family, scope, label, id, image, number }: AnswerProps) {
  const asked = useAsked(`${scope} ${id} ${number}`, (signal) => predict(family, id, image, signal), SETTLED);
  const answer = asked.error || asked.pending ? undefined : asked.value;
  const probabilities = answer?.predictions[0]?.probabilities ?? [];
  const best = probabilities.map((p, i) => ({ p, name: answer!.classes[i]! })).sort((a, b) => b.p - a.p).slice(0, BEST);
  return (
    <div class="answer" aria-live="polite" data-network={id}>
      <h4>{label}</h4>
      {asked.error && <p class="problem" role="alert">{asked.error.message}</p>}
      {asked.pending && <p class="waits">Asking; the first answer of a network takes seconds.</p>}
      {answer && (
        <>
          <ol>
            {best.map(({ p, name }) => (
              <li key={name}>
                <span class="name">{name}</span>
                <span class="bar"><i style={{ width: `${100 * p}%` }} /></span>
                <span class="number">{percent(p)}</span>
              </li>
            ))}
          </ol>
          <p class="note">in {milliseconds(answer.milliseconds)}</p>
        </>
      )}
    </div>
  );
}
