"""A script with timm, as documented: its data set, its prefetching loader, its scheduler."""

import argparse
import time

import timm
import torch
from timm.data import Mixup, create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, accuracy, random_seed


def train_one_epoch(epoch, model, loader, optimizer, loss_fn, scheduler, accum, ema, mixup):
    model.train()
    update, losses = epoch * (len(loader) // accum), AverageMeter()
    optimizer.zero_grad()
    for index, (images, target) in enumerate(loader):
        images, target = mixup(images, target)
        loss = loss_fn(model(images), target) / accum
        loss.backward()
        losses.update(loss.item() * accum, images.size(0))
        if (index + 1) % accum:
            continue
        optimizer.step()
        optimizer.zero_grad()
        update += 1
        ema.update(model, step=update)
        scheduler.step_update(num_updates=update, metric=losses.avg)
    return losses.avg


@torch.inference_mode()
def validate(model, loader):
    model.eval()
    top = AverageMeter()
    for images, target in loader:
        top.update(accuracy(model(images), target, topk=(1,))[0].item(), images.size(0))
    return top.avg


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("-b", "--batch-size", type=int, default=16)
    parser.add_argument("--accum", type=int, default=1)
    args = parser.parse_args()
    random_seed(42)
    device = torch.device("cpu")
    model = timm.create_model("test_resnet", num_classes=4)
    common = {
        "input_size": (3, 64, 64),
        "batch_size": args.batch_size,
        "device": device,
        "num_workers": args.workers,
        "use_prefetcher": True,
    }
    train = create_loader(
        create_dataset("", root=args.data, split="train", is_training=True),
        is_training=True,
        auto_augment="rand-m9-mstd0.5",
        re_prob=0.25,
        **common,
    )
    valid = create_loader(create_dataset("", root=args.data, split="val"), **common)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3)
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        num_epochs=args.epochs,
        warmup_epochs=0,
        cooldown_epochs=0,
        updates_per_epoch=len(train) // args.accum,
    )
    ema, mixup = ModelEmaV3(model, decay=0.9), Mixup(mixup_alpha=0.2, num_classes=4)
    for epoch in range(0, epochs):
        began = time.time()
        loss = train_one_epoch(
            epoch,
            model,
            train,
            optimizer,
            SoftTargetCrossEntropy(),
            scheduler,
            args.accum,
            ema,
            mixup,
        )
        top = validate(model, valid)
        ema_top = validate(ema.module, valid)
        scheduler.step(epoch + 1)
        torch.save({"epoch": epoch, "state_dict": model.state_dict()}, "last.pth")
        print(
            f"epoch {epoch}: loss {loss:.4f} top1 {top:.2f} {ema_top:.2f} "
            f"{time.time() - began:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
